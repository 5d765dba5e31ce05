"""`ls`: what is in a storage."""

from __future__ import annotations

import json

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, open_catalog, print_json
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.lineage import eligible, newest


def ls(storage: Storage, as_json: AsJson = False) -> None:
    """List the generations of a storage, and what is remembered of collected ones."""
    catalog = open_catalog(storage)
    runs = catalog.runs()
    found = catalog.generations()
    latest = newest((files.generation for files in found if files.complete), runs)
    rows = [
        {
            "generation": generation_label(files.generation),
            "step": files.generation.step,
            "run": files.generation.run,
            "state": _state(files.complete, eligible(files.generation, runs)),
            "newest": files.generation == latest,
            "files": len(files.files),
            "bytes": sum(files.files.values()),
            "mib": sum(files.files.values()) / 2**20,
        }
        for files in found
    ]
    if as_json:
        ledger = [json.loads(entry.to_bytes()) for entry in catalog.ledger()]
        run_rows = [json.loads(document.to_bytes()) for document in catalog.run_documents()]
        print_json({"uri": catalog.store.uri, "generations": rows, "ledger": ledger, "runs": run_rows})
        return
    typer.echo(f"{'GENERATION':<21}{'STATE':<12}{'FILES':>6}{'MIB':>10}")
    for row in rows:
        mark = " *" if row["newest"] else ""
        typer.echo(f"{row['generation']:<21}{row['state']:<12}{row['files']:>6}{row['mib']:>10.1f}{mark}")


def _state(complete: bool, on_line: bool) -> str:  # two facts, one word
    if not on_line:
        return "abandoned"
    return "complete" if complete else "incomplete"
