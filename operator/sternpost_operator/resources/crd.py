"""The CustomResourceDefinitions, generated from the models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel

from sternpost_operator.resources.anomaly import AnomalySpec
from sternpost_operator.resources.attempt import AttemptSpec
from sternpost_operator.resources.base import GROUP, VERSION, cel
from sternpost_operator.resources.names import JOB_NAME_RULES
from sternpost_operator.resources.structural import structural_schema
from sternpost_operator.resources.training_job import TrainingJobSpec
from sternpost_operator.resources.training_job_status import TrainingJobStatus

_HEADER = "# Generated from the models by `sternpost crds`. Change those, then run it again.\n"


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`. One of priority 1 appears with `-o wide` only."""

    name: str
    type: str
    path: str
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Definition:
    """What a CRD says beside the schema of its spec and status."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel] | None = None
    columns: tuple[Column, ...] = ()
    rules: tuple[tuple[str, str], ...] = field(default=())

    @property
    def name(self) -> str:
        """Name of the CRD."""
        return f"{self.plural}.{GROUP}"

    @property
    def file_name(self) -> str:
        """Name of the file that it is generated into."""
        return f"{GROUP}_{self.plural}.yaml"


_AGE = Column("Age", "date", ".metadata.creationTimestamp")

DEFINITIONS = (
    Definition(
        kind="TrainingJob",
        plural="trainingjobs",
        short_name="tj",
        description="A distributed training run that outlives its machines.",
        spec=TrainingJobSpec,
        status=TrainingJobStatus,
        columns=(
            Column("Phase", "string", ".status.phase"),
            Column("Workers", "integer", ".status.workers.desired", description="Workers that the job shall have."),
            Column("Running", "integer", ".status.workers.running", description="Workers whose ranks run."),
            Column("Step", "integer", ".status.progress.step", description="Last step that all workers completed."),
            Column("Attempt", "integer", ".status.attempt.number"),
            Column("Restarts", "integer", ".status.restarts"),
            Column("Loss", "number", ".status.progress.loss", priority=1),
            Column(
                "Checkpoint", "integer", ".status.checkpoint.lastStep", 1, "Step of the newest committed checkpoint."
            ),
            Column("Excluded", "string", ".status.excludedNodes[*].node", 1, "Nodes that get no workers of this job."),
            _AGE,
        ),
        rules=JOB_NAME_RULES,
    ),
    Definition(
        kind="Attempt",
        plural="attempts",
        short_name="ta",
        description="The control object of a job: one run of its ranks. Written by the operator, read by the sidecars.",
        spec=AttemptSpec,
        columns=(
            Column("Job", "string", ".spec.job"),
            Column("Number", "integer", ".spec.number"),
            Column("Action", "string", ".spec.action"),
            Column("Ranks", "integer", ".spec.worldSize"),
            Column("Issued", "date", ".spec.issuedAt"),
            _AGE,
        ),
    ),
    Definition(
        kind="Anomaly",
        plural="anomalies",
        short_name="tan",
        description="What eagle-eye saw: who, what, the evidence and how sure it is.",
        spec=AnomalySpec,
        columns=(
            Column("Job", "string", ".spec.job"),
            Column("Kind", "string", ".spec.kind"),
            Column("Worker", "integer", ".spec.worker"),
            Column("Node", "string", ".spec.node"),
            Column("Confidence", "number", ".spec.confidence"),
            Column("Evict", "boolean", ".spec.evict", description="Whether the node shall be left."),
            Column("Last seen", "date", ".spec.lastSeen"),
            Column("Evidence", "string", ".spec.evidence", priority=1),
            _AGE,
        ),
    ),
)


def build_crd(definition: Definition) -> dict[str, Any]:
    """The CustomResourceDefinition as the API server takes it."""
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": structural_schema(definition.spec, defaults=True),
    }
    if definition.status is not None:
        properties["status"] = structural_schema(definition.status, defaults=False)
    schema = {
        "description": definition.description,
        "type": "object",
        "required": ["spec"],
        "properties": properties,
        **(cel(*definition.rules) if definition.rules else {}),
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        **({"subresources": {"status": {}}} if definition.status is not None else {}),
        "additionalPrinterColumns": [_column(column) for column in definition.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["sternpost"],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    result: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        result["priority"] = column.priority
    if column.description:
        result["description"] = column.description
    return result


class _Dumper(yaml.SafeDumper):
    """Writes every value out: aliases in a generated file help nobody."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def render_crds() -> dict[str, str]:
    """The content of every file of the CRD folder, by file name; the same on every machine."""
    return {
        definition.file_name: _HEADER
        + yaml.dump(build_crd(definition), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        for definition in DEFINITIONS
    }
