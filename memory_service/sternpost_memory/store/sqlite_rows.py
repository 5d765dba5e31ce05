"""Rows of the SQLite store as values, and back."""

from __future__ import annotations

import json
from typing import Any

from sternpost_memory.model import Fact, Job, JobKind, JobState, NewObservation, Observation, Topic

Row = tuple[Any, ...]

OBSERVATION = "o.seq, o.text, o.occurred_at, o.received_at, o.source, o.entities, o.attributes"
FACT = "f.id, f.entity, f.attribute, f.value, f.valid_from, f.valid_to, f.superseded_by, f.seq, f.source"
TOPIC = (
    "t.id, t.title, t.summary, t.created_at, t.updated_at, t.version, t.sources, t.size, t.first_event_at, "
    "t.last_event_at, t.categories, t.profile, t.document"
)


def dumps(value: object) -> str:
    """Compact JSON, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def observation_from(row: Row) -> Observation:
    """From the columns `OBSERVATION`. It was validated when it arrived."""
    seq, text, occurred_at, received_at, source, entities, attributes = row
    return Observation.model_construct(
        seq=seq,
        text=text,
        occurred_at=occurred_at,
        received_at=received_at,
        source=source,
        entities=json.loads(entities),
        attributes=json.loads(attributes),
    )


def observation_row(new: NewObservation) -> Row:
    """Text, time, source, entities, attributes."""
    return (new.text, new.occurred_at, new.source, dumps(new.entities), dumps(new.attributes))


def fact_from(row: Row) -> Fact:
    """From the columns `FACT`."""
    fact_id, entity, attribute, value, valid_from, valid_to, superseded_by, seq, source = row
    return Fact.model_construct(
        id=fact_id,
        entity=entity,
        attribute=attribute,
        value=json.loads(value),
        valid_from=valid_from,
        valid_to=valid_to,
        superseded_by=superseded_by,
        seq=seq,
        source=source,
    )


def topic_from(row: Row) -> Topic:
    """From the columns `TOPIC`."""
    names = (
        "id", "title", "summary", "created_at", "updated_at", "version", "sources", "size", "first_event_at",
        "last_event_at", "categories", "profile", "document",
    )  # fmt: skip
    values = dict(zip(names, row, strict=True))
    values["categories"] = json.loads(values["categories"])
    return Topic.model_construct(**values)


def job_from(row: Row, consolidated_seq: int) -> Job:
    """From id, space, kind, created_at, first_seq, last_seq."""
    job_id, space, kind, created_at, first_seq, last_seq = row
    return Job(
        id=job_id,
        space=space,
        kind=JobKind(kind),
        # Read off the log's state, so it cannot disagree with it, whatever crashed when.
        state=JobState.DONE if last_seq <= consolidated_seq else JobState.PENDING,
        created_at=created_at,
        first_seq=first_seq,
        last_seq=last_seq,
    )
