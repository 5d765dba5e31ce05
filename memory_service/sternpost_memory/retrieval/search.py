"""Search: what the index found, weighed and put in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sternpost_memory import limits
from sternpost_memory.retrieval.query import terms
from sternpost_memory.store.base import Candidate, CandidateKind, Store

WEIGHT = {CandidateKind.FACT: 1.2, CandidateKind.OBSERVATION: 1.0, CandidateKind.TOPIC: 1.0}
SUPERSEDED_WEIGHT = 0.5
"""For an observation all of whose facts were replaced: it was true once."""
CANDIDATES_PER_HIT = 3


class BehindError(Exception):
    """The store has not seen yet what the caller wants the search to see."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A candidate with its final score."""

    candidate: Candidate
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, best first, of a search that saw everything up to `seq`."""

    seq: int
    hits: list[Hit]


def search(store: Store, space: str, query: str, *, limit: int, min_seq: int = 0) -> Answer:
    """Find observations (consolidated or not), current facts and topics.

    Raises:
        BehindError: the store's newest observation is older than `min_seq`.
        StoreError: the store could not be read.
    """
    found = store.search(space, terms(query), limit=min(limit, limits.SEARCH_HITS) * CANDIDATES_PER_HIT)
    if found.seq < min_seq:
        raise BehindError(f"the newest observation here is {found.seq}, not yet {min_seq}: try again in a moment")
    return Answer(seq=found.seq, hits=ranked(found.candidates)[:limit])


def ranked(candidates: Iterable[Candidate]) -> list[Hit]:
    """Weigh and sort; of two that are equally good the newer comes first."""
    hits = [
        Hit(
            candidate=candidate,
            score=candidate.relevance * WEIGHT[candidate.kind] * (SUPERSEDED_WEIGHT if candidate.superseded else 1.0),
        )
        for candidate in candidates
    ]
    return sorted(hits, key=lambda hit: (-hit.score, -hit.candidate.at, -max(hit.candidate.observations, default=0)))
