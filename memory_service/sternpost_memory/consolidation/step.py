"""One consolidation: read, decide, commit. It may die anywhere: nothing has happened before the commit, all of it after."""

from __future__ import annotations

from sternpost_memory import limits
from sternpost_memory.consolidation.engine import Engine
from sternpost_memory.store.base import Store


def consolidate_next(
    store: Store, engine: Engine, space: str, *, now: float, limit: int = limits.CONSOLIDATION_OBSERVATIONS
) -> int:
    """Consolidate the oldest part of a space's buffer; returns how many observations that were, 0 if there are none.

    No lock is held while the engine works: what is written meanwhile has later sequence numbers and waits.

    Raises:
        StoreConflict: another process was faster; call again.
        StoreError: the store could not be read or written.
    """
    batch = store.batch(space, limit=limit)
    if not batch.observations:
        return 0
    homeless = any(not observation.entities for observation in batch.observations)
    routes = engine.route(batch, store.profiles(space, limit=limits.PROFILES) if homeless else ())
    base = store.base(batch, {topic for topics in routes.values() for topic in topics})
    store.commit(engine.consolidate(base, routes), now=now)
    return len(batch.observations)
