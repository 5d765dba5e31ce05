"""`import`: from other tools."""

from __future__ import annotations

from typing import Annotated

import typer

from sternpost_checkpoint.commands.common import (
    AsJson,
    AtStep,
    Source,
    Storage,
    open_catalog,
    print_facts,
    print_json,
)
from sternpost_checkpoint.commands.export import Form
from sternpost_checkpoint.format.names import generation_label


def import_(
    storage: Storage,
    source: Source,
    form: Annotated[Form, typer.Option("--format", "-f", help="dcp: a torch.distributed.checkpoint folder.")],
    step: AtStep = None,
    as_json: AsJson = False,
) -> None:
    """Store safetensors files, or a torch.distributed.checkpoint folder, as a new generation; nothing in it is run."""
    catalog = open_catalog(storage)
    if form is Form.SAFETENSORS:
        from sternpost_checkpoint.transfer.model_files import import_safetensors  # noqa: PLC0415 # loads the codecs

        manifest = import_safetensors(catalog, source, step)
    else:
        from sternpost_checkpoint.dcp.torch_import import import_dcp  # noqa: PLC0415

        manifest = import_dcp(catalog, source, step)
    facts = {
        "generation": generation_label(manifest.generation),
        "raw": manifest.raw_bytes,
        "stored": manifest.stored_bytes,
        "weights": manifest.weights_hash,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
