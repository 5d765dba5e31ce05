"""TrainingJob: what a person asks for. The status is in `training_job_status.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from sternpost_operator.resources.base import API_VERSION, Model, ObjectMeta, cel
from sternpost_operator.resources.quantity import QUANTITY_PATTERN, from_wire
from sternpost_operator.resources.template_schema import TEMPLATE_SCHEMA
from sternpost_operator.resources.training_job_status import TrainingJobStatus

MAX_SECONDS = 31_536_000
"""A year."""

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
Quantity = Annotated[
    str,
    Field(pattern=QUANTITY_PATTERN, max_length=32),
    BeforeValidator(from_wire),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
        }
    ),
]
"""A Kubernetes quantity, such as `512Mi`; a plain number on the wire is one of bytes."""

# No dollar sign: Kubernetes would expand $(NAME) in the variable that tells the sidecar.
STORAGE_PATTERN = r"^(file|s3|gs|az)://[^$\s]+$"

TRAINER_CONTAINER = "trainer"
"""The container of the template that runs the training."""


class RuleAction(StrEnum):
    """What a failure rule asks for, in place of the ladder's own choice."""

    FAIL_JOB = "FailJob"
    RESTART_RANKS = "RestartRanks"
    REPLACE_POD = "ReplacePod"
    EXCLUDE_NODE = "ExcludeNode"
    RESTART_JOB = "RestartJob"


class FailureRule(Model):
    """The first rule that matches a failed rank decides."""

    exit_codes: list[Annotated[int, Field(ge=-64, le=255)]] = Field(min_length=1, max_length=64)
    """Exit codes of a rank; a rank ended by signal N has -N."""
    action: RuleAction


class RecoveryBudgets(Model):
    """How often each rung of the ladder may be used in the life of the job."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            *(
                (f"!has(self.{rung}) || self.{rung} >= 0", f"{rung} must not be negative")
                for rung in ("ranks", "pods", "jobs")
            )
        )
    )

    ranks: int = Field(10, ge=0, le=10_000)
    """Restarts of ranks in place: every Pod and its memory stay."""
    pods: int = Field(10, ge=0, le=10_000)
    """Replacements of failed Pods; the others stay."""
    jobs: int = Field(3, ge=0, le=10_000)
    """Restarts of the whole job, all Pods anew."""


class RecoveryPolicy(Model):
    """When and how the job is brought back."""

    budgets: RecoveryBudgets = Field(default_factory=RecoveryBudgets)
    rules: list[FailureRule] = Field(default_factory=list, max_length=32)
    settle_seconds: Seconds = 2
    """How long to gather evidence after the first sign of a failure: ranks fail one after another, the cause may come last."""
    node_lost_seconds: Seconds = 10
    """A node that is not ready for so long is lost, and the Pods on it with it."""
    start_seconds: Seconds = 600
    """An attempt that has not started all its ranks by then has failed."""
    grace_seconds: Seconds = 10
    """Between SIGTERM and SIGKILL."""
    exclude_seconds: Seconds = 86_400
    """How long a node that was named stays without workers of this job. Twice as long each further time that it was
    excluded before, by whatever job, as far as the memory service knows."""
    max_exclude_seconds: Seconds = 2_592_000
    """The longest that an exclusion gets, however often the node was excluded before."""
    force_delete_seconds: Seconds = 30
    """A Pod still terminating on a lost node after so long is deleted by force."""


class CodecPolicy(StrEnum):
    """How exact a checkpoint is.

    lossless: bit for bit. adaptive: weights and masters bit for bit, an optimizer's moments within maxUpdateError. compact: the
    same, with the moments as small as a wider bound allows.
    """

    LOSSLESS = "lossless"
    ADAPTIVE = "adaptive"
    COMPACT = "compact"


class CodecPreference(StrEnum):
    """What counts when codecs differ: size, the sidecar's speed, or whichever of processor and storage is the bottleneck."""

    SIZE = "size"
    SPEED = "speed"
    BALANCED = "balanced"


LOSSLESS_ERROR = "maxUpdateError has no meaning with policy lossless; choose adaptive or compact"


class CheckpointPolicy(Model):
    """Where checkpoints go; without it the script keeps its own."""

    model_config = ConfigDict(
        json_schema_extra=cel(("!has(self.maxUpdateError) || self.policy != 'lossless'", LOSSLESS_ERROR))
    )

    storage: str = Field(min_length=1, max_length=2048, pattern=STORAGE_PATTERN)
    """URI of the folder or bucket prefix that this job alone writes to."""
    shared_memory: Quantity = "1Gi"
    """Size of the memory volume; two generations of a worker's state must fit."""
    policy: CodecPolicy = CodecPolicy.LOSSLESS
    prefer: CodecPreference = CodecPreference.BALANCED
    max_update_error: float | None = Field(None, ge=0.000001, le=1)
    """How far the optimizer's next update may be off after a restore: the relative error (L2) of m/(√v+ε), checked for each
    tensor when it is saved; where it would be more, the tensor is stored bit for bit. Without it 0.02 for adaptive and 0.5 for
    compact."""
    max_chain: int = Field(8, ge=0, le=32)
    """A checkpoint may be stored as the difference to an earlier one, and that one too: at most so many in a row, all of which
    a restore must read. 0: every checkpoint stands alone."""
    peer_replication: bool = True
    """Each worker keeps a copy of its newest state in the next worker's memory, so that the loss of a node costs no progress. Of
    no effect with one worker."""
    peer_memory: Quantity | None = None
    """Memory that a worker lends for the copies of another one; without it as much as sharedMemory."""
    keep: int = Field(3, ge=1, le=1000)
    """Committed generations to keep in the storage; those that they build on are kept, too."""

    @model_validator(mode="after")
    def _error_of_lossy(self) -> Self:
        if self.max_update_error is not None and self.policy is CodecPolicy.LOSSLESS:
            raise ValueError(LOSSLESS_ERROR)
        return self


class HangPolicy(Model):
    """No step for `factor` times the longest interval seen in the phase, and at least `minSeconds`."""

    factor: float = Field(5, ge=1.5, le=100)
    min_seconds: Seconds = 60
    init_seconds: Seconds = 600
    """The limit before the first step of an attempt."""


class SlowPolicy(Model):
    """A worker whose own compute time is apart from its peers' is named as soon as that is sure; when it is left is said here."""

    ratio: float = Field(1.5, ge=1.05, le=100)
    """Times the peers' median, at least, that its compute time must be where nothing but slowness is seen of it."""
    seconds: Seconds = 120
    """How long a slow node is suffered before it is evicted; half of that where its hardware says why."""
    min_steps: int = Field(8, ge=3, le=10_000)
    """How many slow steps there must have been."""


class EagleEyePolicy(Model):
    """What the sidecar watches. It is always there (it hands the attempt to the launcher); its detectors can be off."""

    detect: bool = True
    interval_seconds: float = Field(1, ge=0.1, le=60)
    hang: HangPolicy = Field(default_factory=HangPolicy)
    slow: SlowPolicy = Field(default_factory=SlowPolicy)


class MemoryPolicy(Model):
    """The memory service that is told of each incident."""

    url: str = Field("", max_length=2048, pattern=r"^(https?://.+)?$")
    """Empty: the operator's own. On a cluster it is always that one, for the operator shows it a token."""
    space: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """On a cluster `default` stands for the job's namespace; another one must be among those that the platform shares."""


class GangPolicy(Model):
    """Integration with a gang scheduler. Accepted and not acted upon yet: the gang start of the ranks does not need it."""

    scheduler: Literal["none", "kueue", "volcano", "coscheduling"] = "none"
    queue: str = Field("", max_length=253)


class Elastic(Model):
    """Run with as many workers as there are, within bounds."""

    model_config = ConfigDict(json_schema_extra=cel(("self.min <= self.max", "min must not exceed max")))

    min: int = Field(ge=1, le=10_000)
    max: int = Field(ge=1, le=10_000)
    wait_seconds: Seconds = 60
    """How long to wait for `max` before fewer are accepted."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max})")
        return self


ONE_SIZE = "give exactly one of workers and elastic"
_ANEW = "cannot be changed; delete the job and create it anew"
_SAME_STORAGE = (
    "has(self.checkpoint) == has(oldSelf.checkpoint) && "
    "(!has(self.checkpoint) || self.checkpoint.storage == oldSelf.checkpoint.storage)"
)


def _unchangeable(field: str) -> tuple[str, str]:
    return (
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} {_ANEW}",
    )


class TrainingJobSpec(Model):
    """One distributed training run."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.workers) != has(self.elastic)", ONE_SIZE),
            _unchangeable("workers"),
            _unchangeable("elastic"),
            _unchangeable("ranksPerWorker"),
            (_SAME_STORAGE, f"checkpoint.storage {_ANEW}"),
        )
    )

    workers: int | None = Field(None, ge=1, le=10_000)
    """Pods that train; give either this or `elastic`."""
    elastic: Elastic | None = None
    spares: int = Field(0, ge=0, le=1000)
    """Pods that wait, started and without ranks, to take over."""
    ranks_per_worker: int = Field(1, ge=1, le=64)
    suspend: bool = False
    template: dict[str, Any] = Field(json_schema_extra=TEMPLATE_SCHEMA)
    """A PodTemplateSpec; its container `trainer` runs the training."""
    recovery: RecoveryPolicy = Field(default_factory=RecoveryPolicy)
    checkpoint: CheckpointPolicy | None = None
    eagle_eye: EagleEyePolicy = Field(default_factory=EagleEyePolicy)
    memory: MemoryPolicy = Field(default_factory=MemoryPolicy)
    gang: GangPolicy = Field(default_factory=GangPolicy)
    ttl_seconds_after_finished: int | None = Field(None, ge=0)
    """Seconds after its end until the job is deleted, with all that belongs to it; checkpoints stay. Without it the job stays.

    A job whose incidents the memory service has not taken yet is kept a day longer at most."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.workers is None) == (self.elastic is None):
            raise ValueError(ONE_SIZE)
        return self

    @property
    def max_workers(self) -> int:
        """The size the job wants."""
        return self.workers if self.workers is not None else self.elastic.max  # type: ignore[union-attr]

    @property
    def min_workers(self) -> int:
        """The size below which it cannot run."""
        return self.workers if self.workers is not None else self.elastic.min  # type: ignore[union-attr]


class TrainingJob(Model):
    """`trainingjobs.sternpost.dev/v1alpha1`, short name `tj`."""

    api_version: Literal["sternpost.dev/v1alpha1"] = API_VERSION
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    status: TrainingJobStatus = Field(default_factory=TrainingJobStatus)
