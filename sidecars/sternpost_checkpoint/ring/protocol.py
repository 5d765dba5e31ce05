"""The requests between two sidecars. One `hello` opens a connection; each request is answered before the next.

| request | then | answer | then |
|---|---|---|---|
| `hello`: protocol, token, job, attempt, worker | | `instance` | |
| `holdings` | | `holdings`: [[step, run, rank, world size, replicated, whole], …] | |
| `describe`: step, run, rank | | `bytes`, `tensors` | a description |
| `read`: step, run, rank, tensors | | `bytes` | the tensors, one behind the other |
| `push`: bytes, tensors, payload | | `go` | |
| | a description, the held tensors | `kept` | |

or `error`: `{"kind", "message"}`; a push may be refused before its bytes are sent.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.format.documents import RunNumber, Size, Step
from sternpost_checkpoint.format.table import MAX_TENSORS
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.ring.errors import RefusedError

PROTOCOL = 1
MAX_READ_TENSORS = 100_000
MAX_HOLDINGS = 10_000
MAX_RANK = 10_000_000


class _Message(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
    )


class Hello(_Message):
    """Who asks."""

    type: Literal["hello"]
    protocol: int
    token: str = Field(max_length=512)
    job: str = Field(max_length=256)
    attempt: int = Field(ge=0)
    worker: int | None = Field(ge=0)


class Holdings(_Message):
    """What is there."""

    type: Literal["holdings"]


class Describe(_Message):
    """Of what it consists."""

    type: Literal["describe"]
    step: Step
    run: RunNumber
    rank: int = Field(ge=0, le=MAX_RANK)


class Read(_Message):
    """Its bytes."""

    type: Literal["read"]
    step: Step
    run: RunNumber
    rank: int = Field(ge=0, le=MAX_RANK)
    tensors: list[int] = Field(max_length=MAX_READ_TENSORS)


class Push(_Message):
    """Keep this."""

    type: Literal["push"]
    bytes: Size
    """Of the description."""
    tensors: int = Field(ge=0, le=MAX_TENSORS)
    payload: Size
    """Of the held tensors together."""


Request = Holdings | Describe | Read | Push

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Request)


def parse_hello(value: dict[str, Any]) -> Hello:
    """Raises RefusedError, which shows nothing of what was sent."""
    try:
        hello = Hello.model_validate(value)
    except ValidationError:
        raise RefusedError("request", "the first message must be a valid hello") from None
    if hello.protocol != PROTOCOL:
        raise RefusedError(
            "request", f"protocol {hello.protocol} is not {PROTOCOL}: the workers have different releases"
        )
    return hello


def parse_request(value: dict[str, Any]) -> Request:
    """Raises RefusedError."""
    try:
        return _REQUESTS.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise RefusedError("request", f"not a request: {where}: {first['msg'][:120]}") from None


class Holding(_Message):
    """A state that somebody has in memory."""

    step: Step
    run: RunNumber
    rank: int = Field(ge=0, le=MAX_RANK)
    world_size: int = Field(ge=1, le=MAX_RANK)
    replicated: bool
    """The rank's model and optimizer are the same on all ranks."""
    whole: bool
    """All of its tensors are held; else, those alone that no other rank has."""

    @property
    def generation(self) -> Generation:
        """Step and run."""
        return Generation(self.step, self.run)

    def to_list(self) -> list[int | bool]:
        """As on the wire."""
        return [self.step, self.run, self.rank, self.world_size, self.replicated, self.whole]


def parse_holdings(value: object) -> list[Holding]:
    """Raises RefusedError for anything else."""
    if not isinstance(value, list) or len(value) > MAX_HOLDINGS:
        raise RefusedError("request", f"holdings must be a list of at most {MAX_HOLDINGS}")
    found = []
    names = list(Holding.model_fields)
    for entry in value:
        if not isinstance(entry, list) or len(entry) != len(names):
            raise RefusedError("request", "a holding is malformed")
        try:
            found.append(Holding.model_validate(dict(zip(names, entry, strict=True))))
        except ValidationError:
            raise RefusedError("request", "a holding is malformed") from None
    return found
