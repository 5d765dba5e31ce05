"""`restore`: out of a storage into plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sternpost_checkpoint.commands.common import AsJson, Storage, Which, find, open_catalog, print_facts, print_json
from sternpost_checkpoint.format.names import generation_label


def restore(
    storage: Storage,
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A folder that is empty or not there; a file with --tensor.")
    ],
    generation: Which = "latest",
    tensor: Annotated[
        str, typer.Option("--tensor", "-t", help="Only this one, into a file: .npy, .safetensors or .bin.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Decode a generation into a folder (tensors.bin, state.json), or one tensor into a file; every byte is verified."""
    from sternpost_checkpoint.restore.reader import GenerationReader  # noqa: PLC0415 # loads the codecs
    from sternpost_checkpoint.transfer.folder import write_folder, write_tensor  # noqa: PLC0415
    from sternpost_checkpoint.transfer.inventory import choose, inventory  # noqa: PLC0415

    catalog = open_catalog(storage)
    found = find(catalog, generation)
    reader = GenerationReader(catalog, found)
    if tensor:
        item = choose(inventory(reader), tensor)
        write_tensor(reader, item, target)
        size, what = item.bytes, item.label
    else:
        size, what = write_folder(reader, target), "the whole state"
    facts = {"generation": generation_label(found), "what": what, "bytes": size, "target": str(target)}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
