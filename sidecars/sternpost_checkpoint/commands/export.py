"""`export`: for other tools."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sternpost_checkpoint.commands.common import (
    AsJson,
    Storage,
    Target,
    Which,
    find,
    open_catalog,
    parse_size,
    print_facts,
    print_json,
)
from sternpost_checkpoint.format.names import generation_label


class Form(StrEnum):
    """What other tools read."""

    SAFETENSORS = "safetensors"
    DCP = "dcp"


def export(
    storage: Storage,
    target: Target,
    *,
    form: Annotated[Form, typer.Option("--format", "-f", help="dcp: torch.distributed.checkpoint, needs torch.")],
    generation: Which = "latest",
    role: Annotated[
        str, typer.Option("--role", help="safetensors: tensors of this role, without its name; `all`: everything.")
    ] = "model",
    max_size: Annotated[str, typer.Option("--max-size", help="safetensors: of one file.")] = "5G",
    as_json: AsJson = False,
) -> None:
    """Write a generation as safetensors files (no torch needed), or as a torch.distributed.checkpoint folder."""
    from sternpost_checkpoint.restore.reader import GenerationReader  # noqa: PLC0415 # loads the codecs

    catalog = open_catalog(storage)
    reader = GenerationReader(catalog, find(catalog, generation))
    if form is Form.SAFETENSORS:
        from sternpost_checkpoint.transfer.model_files import export_safetensors  # noqa: PLC0415

        chosen = None if role == "all" else role
        paths = export_safetensors(reader, target, role=chosen, max_bytes=parse_size(max_size))
    else:
        from sternpost_checkpoint.dcp.needs import need_torch  # noqa: PLC0415 # torch only where it must be

        need_torch("export --format dcp")
        from sternpost_checkpoint.dcp.torch_export import export_dcp  # noqa: PLC0415

        paths = export_dcp(reader, target)
    facts = {
        "generation": generation_label(reader.generation),
        "format": form.value,
        "files": [str(path) for path in paths],
        "bytes": sum(path.stat().st_size for path in paths),
    }
    if as_json:
        print_json(facts)
    else:
        print_facts({**facts, "files": ", ".join(path.name for path in paths)})
