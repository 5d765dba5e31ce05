"""`show`: one generation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, Which, find, open_catalog, print_facts, print_json
from sternpost_checkpoint.format.documents import Index
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.format.table import parse_table


def show(
    storage: Storage,
    generation: Which = "latest",
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List the tensors: how each is stored, and why so.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one generation: where it came from, its size, the hash of its weights, what it builds on, its tensors."""
    catalog = open_catalog(storage)
    manifest = catalog.manifest(find(catalog, generation))
    rows: list[dict[str, Any]] = []
    if as_json or tensors:
        for entry in manifest.ranks:
            rows += _rows(catalog.index(manifest, entry))
    if as_json:
        print_json({**json.loads(manifest.to_bytes()), "tensors": rows})
        return
    print_facts(
        {
            "generation": generation_label(manifest.generation),
            "attempt": manifest.attempt_id,
            "saved": datetime.fromtimestamp(manifest.saved_at, tz=UTC).isoformat(timespec="seconds"),
            "ranks": manifest.world_size,
            "bases": ", ".join(generation_label(parent) for parent in manifest.parents) or "none: it stands alone",
            "raw": f"{manifest.raw_bytes} bytes",
            "stored": f"{manifest.stored_bytes} bytes ({manifest.raw_bytes / max(manifest.stored_bytes, 1):.2f}x)",
            "weights": f"sha256 {manifest.weights_hash}",
        }
    )
    for row in rows:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        ratio = row["bytes"] / max(row["storedBytes"], 1)
        block = f" @{row['shard']['start']} of {row['shard']['shape']}" if row.get("shard") else ""
        typer.echo(
            f"{row['rank']:>5}  {row['name']}  {row['dtype']} {shape}{block}  {row['codec']} {ratio:.2f}x  {row['reason']}"
        )


def _rows(index: Index) -> list[dict[str, Any]]:
    specs = parse_table(index.tensors, f"rank {index.rank}")
    return [
        {"rank": index.rank, **specs[stored.tensor].to_json(), **json.loads(stored.to_bytes())}
        for stored in index.stored
    ]
