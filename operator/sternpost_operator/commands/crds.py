"""`sternpost crds`: the CustomResourceDefinitions, generated from the models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sternpost_operator.resources.crd import render_crds

_STDOUT = Path("-")


def crds(
    output: Annotated[Path, typer.Option(help="Folder for the files; - writes to standard output.")] = Path("crds"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a file is not up to date.")] = False,
) -> None:
    """Write the CustomResourceDefinitions, one file each.

    Into a cluster: sternpost crds --output - | kubectl apply --server-side -f -
    """
    files = render_crds()
    try:
        if check:
            _check(output, files)
        elif output == _STDOUT:
            typer.echo("---\n".join(files.values()), nl=False)
        else:
            output.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (output / name).write_text(content, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{output}: {error}", err=True)
        raise typer.Exit(2) from error


def _check(folder: Path, files: dict[str, str]) -> None:
    stale = [name for name, content in files.items() if _read(folder / name) != content]
    stale += sorted(path.name for path in folder.glob("*.yaml") if path.name not in files)
    if not stale:
        return
    for name in stale:
        reason = "is not generated any more; delete it" if name not in files else "is not what the models say"
        typer.echo(f"{folder / name}: {reason}", err=True)
    typer.echo(f"run: sternpost crds --output {folder}", err=True)
    raise typer.Exit(1)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
