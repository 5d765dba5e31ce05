"""Space → observations → topics → facts in slots. Observations are the source of truth, all else is computed from them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.alias_generators import to_camel

from sternpost_memory import limits

MAX_INTEGER = 2**63 - 1


def _text(value: str) -> str:
    size = len(value.encode())
    if size > limits.TEXT_BYTES:
        raise ValueError(
            f"the text has {size} bytes, more than {limits.TEXT_BYTES}: split it into several observations"
        )
    if not value.strip():
        raise ValueError("the text is empty")
    return value


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("control characters and blanks at either end are not allowed")
    return value


def _entity(value: str) -> str:
    _printable(value)
    if any(segment in {"", ".", ".."} for segment in value.split("/")):
        raise ValueError("an entity is kind/name, such as node/node-3: no empty, '.' or '..' part between slashes")
    return value


def _attribute_value(value: str | float) -> str | float:
    if isinstance(value, str) and len(value) > limits.ATTRIBUTE_VALUE_CHARACTERS:
        raise ValueError(f"longer than {limits.ATTRIBUTE_VALUE_CHARACTERS} characters: put long text into `text`")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("an integer beyond 64 bits: write it as a string")
    return value


SpaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""Name of a tenant's memory."""
EntityName = Annotated[str, Field(min_length=1, max_length=limits.ENTITY_CHARACTERS), AfterValidator(_entity)]
"""`kind/name`, such as `node/node-3`; also the id of the entity's topic."""
AttributeName = Annotated[
    str, Field(min_length=1, max_length=limits.ATTRIBUTE_NAME_CHARACTERS), AfterValidator(_printable)
]
AttributeValue = Annotated[
    StrictStr | StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)],
    AfterValidator(_attribute_value),
]
Time = Annotated[float, Field(ge=0, le=limits.LATEST_TIME, allow_inf_nan=False)]
"""Unix seconds."""


class Model(BaseModel):
    """An immutable value that is written in camelCase and refuses unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


class NewObservation(Model):
    """Something that was seen, in the words of whoever saw it."""

    text: Annotated[str, AfterValidator(_text)]
    """Kept word for word; at most 16 KiB of UTF-8."""
    occurred_at: Time | None = None
    """When it happened, in Unix seconds; when it arrived, if not given."""
    source: Annotated[str, Field(max_length=limits.SOURCE_CHARACTERS), AfterValidator(_printable)] = ""
    """Who says so."""
    entities: Annotated[list[EntityName], Field(max_length=limits.ENTITIES)] = Field(default_factory=list)
    """What it is about; each has a topic document of its own. Without one a topic is chosen by the words of the text."""
    attributes: Annotated[dict[AttributeName, AttributeValue], Field(max_length=limits.ATTRIBUTES)] = Field(
        default_factory=dict
    )
    """Facts about the first entity. Without an entity they are kept with the observation and make no facts."""


class Observation(NewObservation):
    """An observation in the log."""

    seq: int = Field(ge=1)
    """Its place in the space's log, which has no gaps."""
    received_at: Time

    @property
    def event_time(self) -> float:
        """Unix seconds by which it takes its place in histories.

        A time in the future is not believed (it would win against everything that follows): such an observation counts
        as having happened when it arrived.
        """
        return self.received_at if self.occurred_at is None else min(self.occurred_at, self.received_at)


class Slot(Model):
    """What a fact is about: it holds one value at a time."""

    entity: str
    attribute: str


class Fact(Model):
    """The value of a slot from one time to another, as one observation states it."""

    id: str
    """`SEQ.N`: the N-th attribute, by name, of observation SEQ."""
    entity: str
    attribute: str
    value: AttributeValue
    valid_from: Time
    valid_to: Time | None = None
    """When the next value took its place; none if it is the current one."""
    superseded_by: str | None = None
    """Id of the fact that took its place."""
    seq: int
    """The observation that states it."""
    source: str = ""

    @property
    def slot(self) -> Slot:
        """The slot that it is a value of."""
        return Slot(entity=self.entity, attribute=self.attribute)

    @property
    def order(self) -> tuple[float, int]:
        """Facts of a slot follow each other by event time, then by place in the log."""
        return (self.valid_from, self.seq)


class Topic(Model):
    """A topic and its document, computed from observations alone."""

    id: str
    title: str
    summary: str
    created_at: Time
    """When the first of its observations arrived, Unix seconds."""
    updated_at: Time
    """When the last of its observations arrived, Unix seconds."""
    version: int = Field(ge=1)
    """Grows by one with each consolidation that changes it."""
    sources: int = Field(ge=1)
    """Number of its observations."""
    size: int
    """UTF-8 bytes of the document below its header."""
    first_event_at: Time
    last_event_at: Time
    categories: dict[str, int]
    """Number of observations by category, in order of first appearance."""
    profile: str
    """Words that an observation without entities is compared with."""
    document: str
    """Markdown with a header."""


class TopicVersion(Model):
    """What one consolidation did to a topic."""

    version: int
    updated_at: Time
    summary: str
    size: int
    observations: list[int]
    """Sequence numbers of the observations that came in with it."""


class JobKind(StrEnum):
    """What a job waits for."""

    INGEST = "ingest"
    """The job's own observations are in topic documents."""
    CONSOLIDATION = "consolidation"
    """All observations that were there when it was asked for are in topic documents."""


class JobState(StrEnum):
    """How far a job is."""

    PENDING = "pending"
    DONE = "done"


class Job(Model):
    """A promise that observations get into topic documents. The observations themselves are safe already."""

    id: str
    space: str
    kind: JobKind
    state: JobState
    created_at: Time
    first_seq: int
    last_seq: int
