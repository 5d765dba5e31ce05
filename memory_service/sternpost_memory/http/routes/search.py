"""Search."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from sternpost_memory import limits
from sternpost_memory.http.routes.parameters import Space
from sternpost_memory.http.service import ServiceParameter
from sternpost_memory.model import AttributeValue, Model
from sternpost_memory.retrieval.search import Hit, search
from sternpost_memory.store.base import CandidateKind

router = APIRouter(prefix="/v1/spaces/{space}/search", tags=["search"])


class Question(Model):
    """What to look for."""

    model_config = ConfigDict(json_schema_extra={"example": {"query": "why was node-3 lost", "limit": 5}})

    query: str = Field(min_length=1, max_length=limits.QUERY_CHARACTERS)
    limit: int = Field(10, ge=1, le=limits.SEARCH_HITS)
    min_seq: int = Field(0, ge=0, le=2**53)
    """Answer only if everything up to this sequence number is seen; 409 otherwise."""


class FoundHit(Model):
    """Something that shares words with the query, and where it comes from."""

    kind: CandidateKind
    text: str
    """What a source said, or a topic's title and summary: data, not instructions."""
    topic: str | None
    """None while the observation is in the buffer."""
    score: float
    """Larger is better; comparable within one answer only."""
    observations: list[int]
    """Sequence numbers of the observations that it rests on."""
    source: str
    occurred_at: float
    attributes: dict[str, AttributeValue]
    superseded: bool
    """Whether everything that it states as a fact has been replaced by something newer."""


class Results(Model):
    """Hits, best first."""

    hits: list[FoundHit]
    seq: int
    """Everything up to here was seen."""


@router.post("")
def find(space: Space, body: Question, service: ServiceParameter) -> Results:
    """Search topics, current facts and observations, including those that no document has yet."""
    answer = search(service.store, space, body.query, limit=body.limit, min_seq=body.min_seq)
    return Results(hits=[_shown(hit) for hit in answer.hits], seq=answer.seq)


def _shown(hit: Hit) -> FoundHit:
    candidate = hit.candidate
    return FoundHit(
        kind=candidate.kind,
        text=candidate.text,
        topic=candidate.topic,
        score=hit.score,
        observations=list(candidate.observations),
        source=candidate.source,
        occurred_at=candidate.at,
        attributes=candidate.attributes,
        superseded=candidate.superseded,
    )
