"""`gc`: remove what nobody needs any more."""

from __future__ import annotations

from typing import Annotated

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, open_catalog, print_json
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.gc import collect, garbage_of


def gc(
    storage: Storage,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Generations to keep, and all that they build on.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all but the newest generations: older ones, abandoned ones, and what was never finished."""
    catalog = open_catalog(storage)
    sizes = {files.generation: sum(files.files.values()) for files in catalog.generations()}
    garbage = [files.generation for files in garbage_of(catalog, keep)] if dry_run else collect(catalog, keep)
    freed = sum(sizes.get(generation, 0) for generation in garbage)
    labels = [generation_label(generation) for generation in garbage]
    if as_json:
        print_json({"removed": [] if dry_run else labels, "wouldRemove": labels if dry_run else [], "bytes": freed})
        return
    for label in labels:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {label}")
    typer.echo(f"{len(labels)} generations, {freed / 2**20:.1f} MiB")
