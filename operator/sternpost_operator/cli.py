"""`sternpost`: the command line. What a command does is in `commands/`."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from sternpost_operator.commands.crds import crds
from sternpost_operator.commands.operator import operator
from sternpost_operator.commands.validate import validate

app = typer.Typer(
    name="sternpost",
    help="Distributed training jobs that outlive their machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Manifest = Annotated[Path, typer.Argument(metavar="FILE", help="Manifest of a TrainingJob.")]


@app.command()
def run(  # noqa: PLR0917 -- typer passes them by name
    file: Manifest,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Nodes to simulate; one for each worker and spare by default.")
    ] = None,
    inject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="A fault, done once: kill:node=node-1,step=40; slow:worker=1,step=80,factor=3; hang:worker=0,step=120; "
            "exit:worker=1,step=30,signal=9; crash:part=operator|memory|launcher|eagle-eye|checkpoint,worker=1,step=30. "
            "after=SECONDS in place of step. May be given several times.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write report.json here, too.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines in place of the live view.")] = False,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Everything of the run; .sternpost/NAME by default.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw loss and recoveries as PNG.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Report of an undisturbed run, for the picture.")
    ] = None,
    topics: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what is remembered of the excluded nodes here.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so long.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, also where an unfinished run could be resumed.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Where it starts over: move what an earlier run left to DIR.1, DIR.2, …")
    ] = False,
) -> None:
    """Run a TrainingJob on this machine, without any cluster.

    A run that was interrupted or killed is resumed by the same command. A checkpoint.storage of file://./PATH is a
    folder in the state directory, and is removed with it when a job that has ended is run again.

    Exit code: 0 the job succeeded, 1 it failed, 2 bad input, 3 timeout, 130 after Ctrl-C, 143 after SIGTERM.
    """
    from rich.console import Console  # noqa: PLC0415 -- only this command draws

    from sternpost_operator.commands.run import Options  # noqa: PLC0415 -- other commands need none of it
    from sternpost_operator.commands.run import run as run_job  # noqa: PLC0415

    options = Options(
        manifest=file,
        nodes=nodes,
        inject=tuple(inject or ()),
        report=report,
        plain=plain,
        state_dir=state_dir,
        picture=picture,
        reference=reference,
        topics=topics,
        timeout=timeout,
        fresh=fresh,
        keep=keep,
    )
    raise typer.Exit(run_job(options, Console()))


app.command()(operator)
app.command()(validate)
app.command()(crds)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(distribution_version("sternpost"))


def main() -> None:
    """Entry point."""
    app()
