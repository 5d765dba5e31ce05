"""What the commands share: arguments, and finding a generation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError, NotFoundError
from sternpost_checkpoint.format.names import parse_label
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.store.uri import open_store

Storage = Annotated[
    str, typer.Argument(metavar="URI", help="The storage: file:///FOLDER, s3://BUCKET/PREFIX, gs://, az://")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[
    str, typer.Option("--generation", "-g", help="`latest`, a step, or STEP-rRUN as `ls` prints it.", show_default=True)
]
AtStep = Annotated[
    int | None, typer.Option("--step", min=0, help="The new generation's step; one behind the newest if not given.")
]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", exists=True, help="A file, or a folder of files.")]
Target = Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that is empty or not there.")]

_SIZE = re.compile(r"^([0-9]+)([KMGT]?)i?B?$", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def open_catalog(storage: str) -> Catalog:
    """Raises StoreError."""
    return Catalog(open_store(storage))


def find(catalog: Catalog, which: str) -> Generation:
    """The complete generation that `which` names. Raises NotFoundError."""
    complete = [files.generation for files in catalog.generations() if files.complete]
    if which == "latest":
        found = newest(complete, catalog.runs())
    elif which.isdecimal():
        found = max((generation for generation in complete if generation.step == int(which)), default=None)
    else:
        label = parse_label(which)
        found = label if label in complete else None
    if found is None:
        raise NotFoundError(f"{catalog.store.uri} has no complete generation {which!r}; `ls` shows what there is")
    return found


def parse_size(text: str) -> int:
    """Bytes: a number, with K, M, G or T for powers of 1024. Raises CheckpointError."""
    match = _SIZE.match(text)
    if match is None or int(match.group(1)) == 0:
        raise CheckpointError(f"{text!r} is no size: give a number, with K, M, G or T behind it")
    return int(match.group(1)) << _UNITS[match.group(2).upper()]


def print_json(value: object) -> None:
    """For --json: one document on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_facts(facts: dict[str, Any]) -> None:
    """A line for each fact."""
    for name, value in facts.items():
        typer.echo(f"{name:<12}{value}")
