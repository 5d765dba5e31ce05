"""The JSON documents in the storage, as pydantic models: unknown fields are refused, sizes bounded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.names import MAX_RUN, MAX_STEP, index_name, shard_name
from sternpost_checkpoint.format.table import MAX_TENSOR_BYTES, MAX_TENSORS, TensorSpec, parse_spec
from sternpost_checkpoint.lineage import Generation, Run

MAX_DOCUMENT_BYTES = 512 * 2**20
"""Manifests and indexes."""
MAX_SMALL_DOCUMENT_BYTES = 64 * 1024
"""Runs, ledger entries, the pointer."""

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""xxh3-128 in hex, the canonical (big endian) form."""
Size = Annotated[int, Field(ge=0, le=MAX_TENSOR_BYTES)]
Step = Annotated[int, Field(ge=0, le=MAX_STEP)]
RunNumber = Annotated[int, Field(ge=0, le=MAX_RUN)]
WorldSize = Annotated[int, Field(ge=1, le=1_000_000)]


class Document(BaseModel):
    """camelCase on the wire, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    def to_bytes(self) -> bytes:
        """The JSON; equal documents give equal bytes."""
        return self.model_dump_json(by_alias=True).encode()


class Saved(Document):
    """What a generation says of its origin."""

    format: Literal[1] = 1
    step: Step
    run: RunNumber
    job_uid: str = Field(max_length=256)
    attempt_number: int = Field(ge=0)
    attempt_id: str = Field(max_length=64)
    world_size: WorldSize
    saved_at: float
    """Unix seconds at which the copy was complete (of rank 0, in a manifest)."""

    @property
    def generation(self) -> Generation:
        """Step and run."""
        return Generation(self.step, self.run)


class StoredTensor(Document):
    """Where the bytes of a tensor are, and what they must be."""

    tensor: int = Field(ge=0, lt=MAX_TENSORS)
    """Index into the table."""
    codec: str = Field(max_length=64)
    offset: Size
    """In the shard."""
    stored_bytes: Size
    raw_hash: Hash
    stored_hash: Hash


class Index(Saved):
    """rank-NNNNN.json: what one rank saved, and where its shard holds it."""

    rank: int = Field(ge=0)
    sequence: int = Field(ge=0)
    blocked_seconds: float | None
    memcpy_floor_seconds: float | None
    replicated: bool
    trees: dict[str, Any]
    tensors: list[dict[str, Any]] = Field(max_length=MAX_TENSORS)
    """The whole table of the rank's state, as in shared memory."""
    stored: list[StoredTensor] = Field(max_length=MAX_TENSORS)
    """The entries that are in this rank's shard, in the order of the shard."""
    shard_bytes: Size
    shard_hash: Hash
    raw_bytes: Size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rank >= self.world_size:
            raise ValueError(f"rank {self.rank} is outside of a world of {self.world_size}")
        for entry in self.stored:
            if entry.tensor >= len(self.tensors):
                raise ValueError(f"stored tensor {entry.tensor} is not in the table of {len(self.tensors)}")
            if entry.offset + entry.stored_bytes > self.shard_bytes:
                raise ValueError(f"stored tensor {entry.tensor} ends behind the shard's {self.shard_bytes} bytes")
        return self

    def spec(self, tensor: int) -> TensorSpec:
        """Table entry `tensor`, validated."""
        return parse_spec(self.tensors[tensor], index_name(self.rank))


class FileEntry(Document):
    """A file of the generation."""

    name: str = Field(max_length=256)
    bytes: Size
    hash: Hash


class RankEntry(Document):
    """The two files of one rank."""

    rank: int = Field(ge=0)
    shard: FileEntry
    index: FileEntry
    raw_bytes: Size
    blocked_seconds: float | None
    memcpy_floor_seconds: float | None


class Manifest(Saved):
    """manifest.json: written last, it makes the generation complete. A function of the indexes alone."""

    replicated: bool
    weights_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the sorted lines `NAME DTYPE SHAPE HASH` of the tensors with role model."""
    raw_bytes: Size
    stored_bytes: Size
    ranks: list[RankEntry] = Field(min_length=1, max_length=1_000_000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if [entry.rank for entry in self.ranks] != list(range(self.world_size)):
            raise ValueError(f"the manifest does not list the ranks 0 to {self.world_size - 1} in order")
        for entry in self.ranks:
            # Never a name of the file's own choosing: it would be a way out of the folder.
            if entry.shard.name != shard_name(entry.rank) or entry.index.name != index_name(entry.rank):
                raise ValueError(f"rank {entry.rank} has files of other names than the format gives them")
        return self


class LedgerEntry(Saved):
    """What is remembered of a committed generation when its files are gone."""

    raw_bytes: Size
    stored_bytes: Size
    blocked_seconds: float | None
    """The longest of all ranks."""
    memcpy_floor_seconds: float | None
    weights_hash: str = Field(max_length=64)


class RunDocument(Document):
    """runs/NNNNNN.json."""

    format: Literal[1] = 1
    number: RunNumber
    job_uid: str = Field(max_length=256)
    attempt_number: int = Field(ge=0)
    attempt_id: str = Field(max_length=64)
    restored_step: Step
    restored_run: RunNumber | None
    token: str = Field(max_length=64)
    """Of the request: the same request asked twice registers once."""
    registered_at: float

    def to_run(self) -> Run:
        """The part that decides."""
        return Run(self.number, self.restored_step, self.job_uid, self.attempt_number, self.attempt_id)


class Latest(Document):
    """latest.json: a hint for people and tools; restoring reads the manifests themselves."""

    format: Literal[1] = 1
    step: Step
    run: RunNumber
    manifest: str = Field(max_length=256)
    manifest_hash: Hash

    @property
    def generation(self) -> Generation:
        """Step and run."""
        return Generation(self.step, self.run)


DocumentT = TypeVar("DocumentT", bound=Document)


def parse(model: type[DocumentT], data: bytes, where: str) -> DocumentT:
    """Validate a document. Raises FormatError with `where` and the first rule that was broken."""
    try:
        return model.model_validate_json(data)
    except (ValidationError, RecursionError) as error:
        detail = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            detail = f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"
        raise FormatError(f"{where} is not a valid {model.__name__} document: {detail}") from error
