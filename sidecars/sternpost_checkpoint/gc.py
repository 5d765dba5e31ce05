"""Which generations nobody needs any more, and their removal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from sternpost_checkpoint.adaptive.chains import reachable
from sternpost_checkpoint.catalog import Catalog, GenerationFiles
from sternpost_checkpoint.errors import FormatError, NotFoundError
from sternpost_checkpoint.format.names import LEDGER, MANIFEST, generation_folder
from sternpost_checkpoint.lineage import Generation, Run, eligible

_log = structlog.get_logger()

LEDGER_ENTRIES = 1000
"""Ledger entries to keep."""


def collectable(
    complete: Iterable[Generation],
    incomplete: Iterable[Generation],
    runs: Sequence[Run],
    keep: int,
    parents: Callable[[Generation], Sequence[Generation]] = lambda _: (),
) -> list[Generation]:
    """Decide what to remove, oldest first. Pure, but for what `parents` does.

    The newest `keep` (at least one) complete generations on the current line stay, and all that they reach through `parents`,
    which raises FormatError or NotFoundError where nobody can say. Nothing is removed before there is one. What is incomplete
    and not older than the newest of them may still be in the making.
    """
    complete = list(complete)
    line = sorted((generation for generation in complete if eligible(generation, runs)), reverse=True)
    if not line:
        return []
    newest = line[0]
    try:
        there = set(complete)
        kept = reachable(line[: max(keep, 1)], lambda generation: parents(generation) if generation in there else ())
    except (FormatError, NotFoundError) as error:
        # What a damaged manifest needs is unknown, and so what nobody needs.
        _log.warning("no complete generation is collected while one of the newest is damaged", reason=str(error))
        kept = set(complete)
    garbage = [generation for generation in complete if generation not in kept]
    garbage += [
        generation
        for generation in incomplete
        if not eligible(generation, runs) or (generation.run <= newest.run and generation < newest)
    ]
    return sorted(garbage)


def garbage_of(catalog: Catalog, keep: int) -> list[GenerationFiles]:
    """What `collect` would remove, oldest first."""
    found = catalog.generations()
    # After the generations: one that became abandoned meanwhile may go, the other way round a new one could.
    runs = catalog.runs()
    garbage = set(
        collectable(
            (files.generation for files in found if files.complete),
            (files.generation for files in found if not files.complete),
            runs,
            keep,
            catalog.parents,
        )
    )
    return [files for files in found if files.generation in garbage]


def collect(catalog: Catalog, keep: int) -> list[Generation]:
    """Remove what is collectable; returns it. A crash in between leaves incomplete generations for the next time.

    Youngest first: whatever is left at any moment still has its bases.
    """
    garbage = garbage_of(catalog, keep)
    for files in reversed(garbage):
        folder = generation_folder(files.generation)
        # The manifest first: what is half removed must not look complete.
        for name in sorted(files.files, key=lambda name: name != MANIFEST):
            catalog.store.delete(folder + name)
    entries = catalog.store.list(LEDGER)
    for entry in entries[: max(len(entries) - LEDGER_ENTRIES, 0)]:
        catalog.store.delete(entry.name)
    return [files.generation for files in garbage]
