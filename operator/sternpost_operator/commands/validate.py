"""`sternpost validate`: what is wrong with a manifest, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sternpost_operator.resources.manifest import Manifest, Problem, parse_manifest, read_manifest

EXIT_INVALID = 2


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifests, each with one TrainingJob.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for all files.")] = False,
) -> None:
    """Say what is wrong with manifests, as FILE:LINE: FIELD: MESSAGE; exit 2 if anything is."""
    results = [(file, _load(file)) for file in files]
    if as_json:
        typer.echo(json.dumps([_as_json(file, manifest) for file, manifest in results], indent=2))
    else:
        for file, manifest in results:
            for line in _as_lines(file, manifest):
                typer.echo(line)
    if any(manifest.problems for _, manifest in results):
        raise typer.Exit(EXIT_INVALID)


def _load(file: Path) -> Manifest:
    try:
        return parse_manifest(read_manifest(file))
    except OSError as error:
        return Manifest(None, (Problem(0, 0, "", f"cannot be read: {error.strerror or error}"),))


def _as_lines(file: Path, manifest: Manifest) -> list[str]:
    if not manifest.problems:
        return [f"{file}: OK"]
    return [f"{file}:{problem}" if problem.line else f"{file}: {problem.message}" for problem in manifest.problems]


def _as_json(file: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "file": str(file),
        "valid": not manifest.problems,
        "job": manifest.job.metadata.name if manifest.job else None,
        "problems": [
            {"line": item.line, "column": item.column, "path": item.path, "message": item.message}
            for item in manifest.problems
        ],
    }
