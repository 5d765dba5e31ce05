"""`verify`: read everything and compare."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, find, open_catalog, print_json
from sternpost_checkpoint.format.names import generation_label


def verify(
    storage: Storage,
    generation: Annotated[str, typer.Option("--generation", "-g", help="As for `show`, or `all`.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Read every byte of the complete generations and check every hash; exit code 1 when one is damaged."""
    from sternpost_checkpoint.verify import verify_generation  # noqa: PLC0415 # loads the codecs

    catalog = open_catalog(storage)
    if generation == "all":
        chosen = [files.generation for files in catalog.generations() if files.complete]
    else:
        chosen = [find(catalog, generation)]
    results: list[dict[str, Any]] = []
    for item in chosen:
        problems = verify_generation(catalog, item)
        results.append({"generation": generation_label(item), "ok": not problems, "problems": problems})
        if not as_json:
            typer.echo(f"{generation_label(item)}  {'ok' if not problems else 'DAMAGED'}")
            for problem in problems:
                typer.echo(f"  {problem}")
    if as_json:
        print_json({"uri": catalog.store.uri, "generations": results})
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)
