"""What the Redis store writes, as values, and back. Numbers are written by Python alone: Lua would round them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sternpost_memory.consolidation.engine import Change, TopicChange
from sternpost_memory.errors import StoreCorrupted
from sternpost_memory.model import Fact, Job, JobKind, JobState, NewObservation, Observation, Topic
from sternpost_memory.store.sqlite_rows import dumps

Entry = tuple[bytes, Mapping[bytes, bytes]]
"""An entry of a stream: id, fields."""

MARK_CHARACTERS = 8
_LEVEL = 1
"""zlib's fastest: documents shrink to a quarter."""


@dataclass(frozen=True, slots=True)
class TopicHeader:
    """A new version of a topic as a commit records it: all but document and profile, of which only the newest are kept."""

    base_version: int
    topic: Topic
    """With an empty document and profile."""
    added: Sequence[int]
    """Sequence numbers of the observations that came in."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One consolidation as it is recorded."""

    number: int
    mark: str
    engine: str
    base_seq: int
    last_seq: int
    at: float
    """Unix seconds."""
    topics: Sequence[TopicHeader]
    facts: Sequence[Fact]


def mark(identity: str) -> str:
    """A few characters by which a write is known again: a follower sees by them that a log has lost its end."""
    return identity[:MARK_CHARACTERS]


def number_of(entry: Entry) -> int:
    """The number in an entry's id."""
    return int(entry[0].partition(b"-")[0])


def mark_of(entry: Entry) -> str:
    """The mark of the write that an entry came with."""
    return entry[1].get(b"m", b"").decode()


def observation_line(new: NewObservation) -> str:
    """An observation without its place and time of arrival."""
    return dumps([new.text, new.occurred_at, new.source, new.entities, new.attributes])


def observation_from(entry: Entry) -> Observation:
    """An entry of the log. It was validated when it arrived."""
    try:
        text, occurred_at, source, entities, attributes = json.loads(entry[1][b"o"])
        return Observation.model_construct(
            seq=number_of(entry),
            text=text,
            occurred_at=occurred_at,
            received_at=float(entry[1][b"t"]),
            source=source,
            entities=entities,
            attributes=attributes,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged("the log", entry, error) from error


def document_blob(topic: Topic) -> bytes:
    """Document and profile of a topic."""
    return zlib.compress(dumps([topic.document, topic.profile]).encode(), _LEVEL)


def document_from(blob: bytes) -> tuple[str, str]:
    """Document and profile."""
    try:
        document, profile = json.loads(zlib.decompress(blob))
    except (zlib.error, ValueError, TypeError) as error:
        raise StoreCorrupted(
            f"a topic's document in Redis is damaged ({error}): `sternpost-memory rebuild --store …` computes it again"
        ) from error
    return document, profile


def commit_entry(change: Change, at: float) -> bytes:
    """What is recorded of a consolidation."""
    return zlib.compress(
        dumps(
            {
                "engine": change.engine,
                "base": change.base_seq,
                "last": change.last_seq,
                "at": float(at),
                "topics": [_topic_row(item) for item in change.topics],
                "facts": [_fact_row(fact) for fact in change.facts],
            }
        ).encode(),
        _LEVEL,
    )


def commit_from(entry: Entry) -> Commit:
    """An entry of the commits."""
    try:
        value = json.loads(zlib.decompress(entry[1][b"e"]))
        return Commit(
            number=number_of(entry),
            mark=mark_of(entry),
            engine=value["engine"],
            base_seq=value["base"],
            last_seq=value["last"],
            at=value["at"],
            topics=[_topic_from(row) for row in value["topics"]],
            facts=[_fact_from(row) for row in value["facts"]],
        )
    except (KeyError, ValueError, TypeError, zlib.error) as error:
        raise _damaged("the record of consolidations", entry, error) from error


def job_from(job_id: str, space: str, line: bytes, consolidated_seq: int) -> Job:
    """From `KIND FIRST LAST CREATED`."""
    kind, first_seq, last_seq, created_at = line.decode().split(" ")
    return Job(
        id=job_id,
        space=space,
        kind=JobKind(kind),
        # Read off the log's state, so it cannot disagree with it, whatever crashed when.
        state=JobState.DONE if int(last_seq) <= consolidated_seq else JobState.PENDING,
        created_at=float(created_at),
        first_seq=int(first_seq),
        last_seq=int(last_seq),
    )


_TOPIC_FIELDS = (
    "id", "title", "summary", "created_at", "updated_at", "version", "sources", "size", "first_event_at",
    "last_event_at", "categories",
)  # fmt: skip
_FACT_FIELDS = (
    "id", "entity", "attribute", "value", "valid_from", "valid_to", "superseded_by", "seq", "source",
)  # fmt: skip


def _topic_row(change: TopicChange) -> list[Any]:
    fields = (getattr(change.topic, name) for name in _TOPIC_FIELDS)
    return [*fields, change.base_version, [item.seq for item in change.added]]


def _topic_from(row: list[Any]) -> TopicHeader:
    *values, base_version, added = row
    fields = dict(zip(_TOPIC_FIELDS, values, strict=True))
    topic = Topic.model_construct(**fields, document="", profile="")
    return TopicHeader(base_version=base_version, topic=topic, added=added)


def _fact_row(fact: Fact) -> list[Any]:
    return [getattr(fact, name) for name in _FACT_FIELDS]


def _fact_from(row: list[Any]) -> Fact:
    return Fact.model_construct(**dict(zip(_FACT_FIELDS, row, strict=True)))


def _damaged(what: str, entry: Entry, error: Exception) -> StoreCorrupted:
    return StoreCorrupted(
        f"{what} in Redis has an entry {entry[0].decode()} that cannot be read ({error!r}): restore Redis from its "
        "append-only file or a backup"
    )
