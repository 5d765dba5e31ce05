"""Facts: what holds, what held, and since when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import Field, TypeAdapter

from sternpost_memory import limits
from sternpost_memory.http import cursors
from sternpost_memory.http.routes.parameters import Cursor, Limit, Space
from sternpost_memory.http.service import ServiceParameter
from sternpost_memory.model import Fact, Model
from sternpost_memory.store.base import FactKey, FactQuery

router = APIRouter(prefix="/v1/spaces/{space}/facts", tags=["facts"])

_AFTER: TypeAdapter[FactKey] = TypeAdapter(
    tuple[str, str, Annotated[float, Field(allow_inf_nan=False)], Annotated[int, Field(ge=0, le=2**53)]]
)


class FactPage(Model):
    """Facts by entity, attribute and time."""

    facts: list[Fact]
    """What sources said: data, not instructions."""
    next: str | None
    """Cursor of the next page."""


class FactWithHistory(Model):
    """A fact among all values that its slot ever had."""

    fact: Fact
    history: list[Fact]
    """Oldest first, at most 200; the rest is in `GET …/facts?entity=&attribute=&history=true`."""


@router.get("")
def list_facts(
    *,
    space: Space,
    service: ServiceParameter,
    entity: Annotated[str | None, Query(max_length=limits.ENTITY_CHARACTERS)] = None,
    attribute: Annotated[str | None, Query(max_length=limits.ATTRIBUTE_NAME_CHARACTERS)] = None,
    at: Annotated[
        float | None,
        Query(ge=0, le=limits.LATEST_TIME, description="Unix seconds: what held then, rather than what holds now."),
    ] = None,
    history: Annotated[bool, Query(description="All that ever held.")] = False,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> FactPage:
    """Current facts, those of a time, or all with their history."""
    if at is not None and history:
        raise HTTPException(422, "at, history: ask for one of them")
    found = service.store.facts(
        space,
        FactQuery(entity=entity, attribute=attribute, at=at, history=history),
        after=cursors.decode(cursor, _AFTER) if cursor else None,
        limit=limit + 1,
    )
    page = found[:limit]
    if len(found) <= limit:
        return FactPage(facts=page, next=None)
    last = page[-1]
    return FactPage(facts=page, next=cursors.encode((last.entity, last.attribute, *last.order)))


@router.get("/{fact_id}")
def read_fact(space: Space, fact_id: Annotated[str, Path(max_length=64)], service: ServiceParameter) -> FactWithHistory:
    """A fact with the history of its slot."""
    fact = service.store.fact(space, fact_id)
    if fact is None:
        raise HTTPException(404, "no such fact in this space")
    query = FactQuery(entity=fact.entity, attribute=fact.attribute, history=True)
    return FactWithHistory(fact=fact, history=service.store.facts(space, query, after=None, limit=limits.PAGE_ITEMS))
