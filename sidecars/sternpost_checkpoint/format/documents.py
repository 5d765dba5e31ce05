"""The JSON documents in the storage, as pydantic models: unknown fields are refused, sizes bounded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.names import FORMAT, MAX_RUN, MAX_STEP, index_name, is_shard_name
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


SHARD_HEADER_BYTES = 16
"""Magic and version, before the first tensor."""
MAX_CHAIN = 64
"""Generations that an index may need behind its own; what is written stays far below."""
MAX_REASON = 200
MAX_UPDATE_ERROR = 1e6


def check_older(parent: Generation, child: Generation) -> None:
    """Raise ValueError unless `parent` comes before `child`: then no chain of bases can be a cycle."""
    if parent >= child:
        raise ValueError(f"the base, step {parent.step} of run {parent.run}, is not older than what builds on it")


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

    format: Literal[2] = FORMAT
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
    """Of what decoding gives; a lossy codec's is not that of what was saved."""
    stored_hash: Hash
    delta: bool = False
    """Decoding needs the tensor of the same name, as the same rank's index of the parent stores it."""
    companion: int | None = Field(None, ge=0, lt=MAX_TENSORS)
    """Index into the table: decoding needs that tensor of this same index, decoded."""
    reason: str = Field("", max_length=MAX_REASON)
    """Why this codec, for people."""
    update_error: float | None = Field(None, ge=0, le=MAX_UPDATE_ERROR)
    """Of lossy moments: the relative L2 error of the update m/(sqrt(v)+eps), measured when they were encoded."""


class Base(Document):
    """The parent: the generation whose decoded state the delta tensors of one rank are encoded against."""

    step: Step
    run: RunNumber
    shard_hash: Hash
    """Of the same rank's shard there."""

    @property
    def generation(self) -> Generation:
        """Step and run."""
        return Generation(self.step, self.run)


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
    """The entries that are in this rank's shard, in the order of the shard, one behind the other."""
    base: Base | None = None
    chain: int = Field(0, ge=0, le=MAX_CHAIN)
    """One more than the base's manifest says: at most so many generations must be read behind this one."""
    shard: str = Field(max_length=256)
    """File name of the shard."""
    shard_bytes: Size
    shard_hash: Hash
    raw_bytes: Size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rank >= self.world_size:
            raise ValueError(f"rank {self.rank} is outside of a world of {self.world_size}")
        # Never a name of the file's own choosing: it would be a way out of the folder.
        if not is_shard_name(self.shard, self.rank):
            raise ValueError(f"{self.shard!r} is not a name that the format gives a shard of rank {self.rank}")
        self._check_stored()
        self._check_base()
        return self

    def _check_stored(self) -> None:
        end, by_tensor = SHARD_HEADER_BYTES, {entry.tensor: entry for entry in self.stored}
        if len(by_tensor) != len(self.stored):
            raise ValueError("a tensor is stored twice")
        for entry in self.stored:
            if entry.tensor >= len(self.tensors):
                raise ValueError(f"stored tensor {entry.tensor} is not in the table of {len(self.tensors)}")
            if entry.offset != end:
                raise ValueError(f"stored tensor {entry.tensor} begins at {entry.offset}, the one before ends at {end}")
            end += entry.stored_bytes
            if entry.companion is None:
                continue
            companion = by_tensor.get(entry.companion)
            # One step and no further: so there is nothing that could go round in circles.
            if companion is None or companion.companion is not None or companion is entry:
                raise ValueError(f"stored tensor {entry.tensor} has a companion that is not stored, or has its own")
        if end != self.shard_bytes:
            raise ValueError(f"the stored tensors end at {end}, the shard at {self.shard_bytes}")

    def _check_base(self) -> None:
        if (self.base is None) == any(entry.delta for entry in self.stored):
            raise ValueError("there is a base exactly when a stored tensor is a delta")
        if (self.base is None) != (self.chain == 0):
            raise ValueError(f"a chain of {self.chain} does not go with the base")
        if self.base is not None:
            check_older(self.base.generation, self.generation)

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
    bases: list[tuple[Step, RunNumber]] = Field([], max_length=1_000_000)
    """Step and run of every parent of a rank's deltas, sorted, each once."""
    chain: int = Field(0, ge=0, le=MAX_CHAIN)
    """The longest of all ranks' chains."""
    ranks: list[RankEntry] = Field(min_length=1, max_length=1_000_000)

    @property
    def parents(self) -> list[Generation]:
        """What must be there to decode this generation, one step back."""
        return [Generation(step, run) for step, run in self.bases]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.bases != sorted(set(self.bases)):
            raise ValueError("the bases are not sorted, or one stands there twice")
        if bool(self.bases) != (self.chain > 0):
            raise ValueError(f"a chain of {self.chain} does not go with {len(self.bases)} bases")
        for parent in self.parents:
            check_older(parent, self.generation)
        if [entry.rank for entry in self.ranks] != list(range(self.world_size)):
            raise ValueError(f"the manifest does not list the ranks 0 to {self.world_size - 1} in order")
        for entry in self.ranks:
            # Never a name of the file's own choosing: it would be a way out of the folder.
            if not is_shard_name(entry.shard.name, entry.rank) or entry.index.name != index_name(entry.rank):
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

    format: Literal[2] = FORMAT
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

    format: Literal[2] = FORMAT
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
            first = error.errors(include_url=False)[0]
            if first["loc"] == ("format",) and first["type"] == "literal_error":
                raise FormatError(
                    f"{where} is of format {str(first['input'])[:20]}, and this release reads format {FORMAT} alone:"
                    " restore it with the release that wrote it, or start in an empty storage"
                ) from error
            detail = f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"
        raise FormatError(f"{where} is not a valid {model.__name__} document: {detail}") from error
