"""`diff`: what changed between two generations."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, find, open_catalog, print_json
from sternpost_checkpoint.format.names import generation_label


def diff(
    storage: Storage,
    older: Annotated[str, typer.Argument(metavar="OLDER", help="`latest`, a step, or STEP-rRUN.")],
    newer: Annotated[str, typer.Argument(metavar="NEWER", help="The same.")] = "latest",
    role: Annotated[
        str, typer.Option("--role", help="Only tensors of this role: model, optimizer, extra, random.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compare two generations: which tensors changed, in how many elements, and by how much."""
    import numpy as np  # noqa: PLC0415 # only this command needs it

    from sternpost_checkpoint.restore.reader import GenerationReader  # noqa: PLC0415
    from sternpost_checkpoint.transfer.compare import compare  # noqa: PLC0415
    from sternpost_checkpoint.transfer.inventory import inventory  # noqa: PLC0415

    catalog = open_catalog(storage)
    readers = [GenerationReader(catalog, find(catalog, which)) for which in (older, newer)]
    before, after = ({item.label: item for item in inventory(reader) if role in ("", item.role)} for reader in readers)
    rows: list[dict[str, Any]] = []
    for label in sorted(before.keys() | after.keys()):
        old, new = before.get(label), after.get(label)
        if old is None or new is None:
            rows.append({"tensor": label, "status": "only in the newer" if old is None else "only in the older"})
            continue
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            rows.append({"tensor": label, "status": "another type or shape"})
            continue
        buffers = [np.empty(old.bytes, dtype=np.uint8).data for _ in readers]
        for reader, item, buffer in zip(readers, (old, new), buffers, strict=True):
            reader.read([item.wanted(buffer)])
        difference = compare(buffers[0], buffers[1], old.dtype)
        status = "changed" if difference.changed else "the same"
        rows.append({"tensor": label, "status": status, "dtype": old.dtype, **difference.to_json()})
    labels = [generation_label(reader.generation) for reader in readers]
    if as_json:
        print_json({"older": labels[0], "newer": labels[1], "tensors": rows})
        return
    typer.echo(f"{labels[0]} -> {labels[1]}")
    for row in rows:
        if row["status"] != "changed":
            typer.echo(f"{row['tensor']:<48} {row['status']}")
            continue
        relative = "inf" if row["relative"] is None else f"{row['relative']:.3g}"
        typer.echo(
            f"{row['tensor']:<48} {row['share']:7.2%} of {row['elements']} changed, by {relative} of its norm,"
            f" {row['largest']:.3g} at most"
        )
