"""From a file to a TrainingJob, or to everything that is wrong with it, line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sternpost_operator.resources.base import API_VERSION
from sternpost_operator.resources.deep_json import MAX_DEPTH, too_deep
from sternpost_operator.resources.explain import explain_error
from sternpost_operator.resources.location import Location, format_location
from sternpost_operator.resources.names import JOB_NAME_PATTERN, MAX_JOB_NAME
from sternpost_operator.resources.quantity import parse_bytes
from sternpost_operator.resources.template import check_template
from sternpost_operator.resources.training_job import MAX_SECONDS, ONE_SIZE, RecoveryPolicy, TrainingJob
from sternpost_operator.resources.yaml_document import Document, Mark, read_documents

MAX_BYTES = 256 * 1024
"""Larger manifests are refused: Kubernetes keeps no annotation beyond that, and `kubectl apply` keeps the manifest in one."""

MIN_SHARED_MEMORY = "8Mi"
"""Less cannot hold two generations of anything that is worth a checkpoint."""

SHOWN_DEPTH = 8
"""Of the place where something is nested too deeply: it is the beginning that tells."""

KIND = "TrainingJob"


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a manifest. Line and column count from 1."""

    line: int
    column: int
    path: str
    """The field, as in `spec.template.spec.containers[0].env[2].name`; empty for the document as a whole."""
    message: str
    """What is wrong with it, and what is allowed."""

    def __str__(self) -> str:
        """`LINE: FIELD: MESSAGE`."""
        return f"{self.line}: {self.path}: {self.message}" if self.path else f"{self.line}: {self.message}"


@dataclass(frozen=True)
class Manifest:
    """What a file holds: a job, or problems, by line."""

    job: TrainingJob | None
    problems: tuple[Problem, ...] = ()


class ManifestError(ValueError):
    """A file that holds no valid job; the message has a line for each problem."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(f"{source}:{problem}" for problem in problems))
        self.source = source
        self.problems = problems


def load_job(path: Path) -> TrainingJob:
    """The job of a file; raises `ManifestError` with all problems, and `OSError` when it cannot be read."""
    manifest = parse_manifest(read_manifest(path))
    if manifest.job is None:
        raise ManifestError(str(path), manifest.problems)
    return manifest.job


def read_manifest(path: Path) -> bytes:
    """The bytes of a file, at most one more than a manifest may have; raises `OSError`."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parse_manifest(content: bytes) -> Manifest:
    """The one TrainingJob in a YAML text, or all that is wrong. Never raises for bad input.

    A `status` is ignored, as Kubernetes does. A field that is null counts as left out.
    """
    if len(content) > MAX_BYTES:
        return _refused(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Manifest(None, (Problem(line, 1, "", "not UTF-8 text"),))
    documents = read_documents(text)
    if not documents:
        return _refused(f"empty; a manifest holds one {KIND}")
    problems: list[Problem] = []
    job: TrainingJob | None = None
    chosen = next((document for document in documents if _is_job(document)), documents[0])
    for document in documents:
        if document is chosen:
            job, found = _read_job(document)
            problems += found
        elif document.faults:
            problems += _faults(document)
        else:
            problems.append(_other(document))
    ordered = tuple(sorted(set(problems)))
    return Manifest(None if ordered else job, ordered)


def _refused(message: str) -> Manifest:
    return Manifest(None, (Problem(1, 1, "", message),))


def _is_job(document: Document) -> bool:
    return isinstance(document.value, dict) and document.value.get("kind") == KIND


def _other(document: Document) -> Problem:
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if kind == KIND:
        message = f"a second {KIND}; a manifest holds one, put the other into a file of its own"
    else:
        message = (
            f"a {kind if isinstance(kind, str) else 'document that is no resource'}; a manifest holds one {KIND} only"
        )
        message += ", apply other resources with kubectl"
    return _problem(document, (), message)


def _problem(document: Document, location: Location, message: str) -> Problem:
    mark: Mark = document.mark(location)
    return Problem(mark.line, mark.column, format_location(location), message)


def _faults(document: Document) -> list[Problem]:
    return [
        Problem(fault.mark.line, fault.mark.column, format_location(fault.location), fault.message)
        for fault in document.faults
    ]


def _read_job(document: Document) -> tuple[TrainingJob | None, list[Problem]]:
    value = document.value
    problems = _faults(document)
    if not isinstance(value, dict):
        return None, problems or [_problem(document, (), f"must be an object, a {KIND}")]
    wrong_type = [
        _problem(document, (field,) if field in value else (), f"is {value.get(field)!r}; must be {wanted}")
        if field in value
        else _problem(document, (), f"needs {field}: {wanted}")
        for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND))
        if value.get(field) != wanted
    ]
    if wrong_type:
        return None, problems + wrong_type
    wire = {key: part for key, part in _without_nulls(value).items() if key != "status"}
    problems += [_problem(document, *found) for found in check_wire(wire)]
    try:
        job = TrainingJob.model_validate_json(json.dumps(wire), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = [explain_error(TrainingJob, detail) for detail in error.errors(include_url=False)]
        return None, problems + [_problem(document, location, message) for location, message in found]
    return job, problems


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def check_wire(wire: dict[str, Any]) -> list[tuple[Location, str]]:
    """What the models cannot see is wrong with a TrainingJob as it is on the wire: where, and what."""
    found = _check_name(wire)
    spec = wire.get("spec")
    deep = too_deep(spec)
    if deep is not None:
        found.append((("spec", *deep[:SHOWN_DEPTH]), f"nested more than {MAX_DEPTH} levels deep"))
    if isinstance(spec, dict):
        found += [(("spec", *location), message) for location, message in _check_spec(spec)]
    return found


def _check_name(wire: dict[str, Any]) -> list[tuple[Location, str]]:
    metadata = wire.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, str) and len(name) > MAX_JOB_NAME:
        return [
            (("metadata", "name"), f"has {len(name)} characters; at most {MAX_JOB_NAME}, for Pods are named after it")
        ]
    if isinstance(name, str) and name[:1].isdigit():
        return [
            (
                ("metadata", "name"),
                f"is {name!r}; must begin with a letter ({JOB_NAME_PATTERN}): a Service is named after it",
            )
        ]
    return []


def _check_spec(spec: dict[str, Any]) -> list[tuple[Location, str]]:
    """What concerns several fields; types and bounds of single ones are the models' business."""
    found: list[tuple[Location, str]] = []
    if ("workers" in spec) == ("elastic" in spec):
        found.append(((), ONE_SIZE))
    ranks = spec.get("ranksPerWorker", 1)
    checkpoint = spec.get("checkpoint")
    shared_memory: str | None = None
    if isinstance(checkpoint, dict):
        shared_memory = str(checkpoint.get("sharedMemory", "1Gi"))
        try:
            if parse_bytes(shared_memory) < parse_bytes(MIN_SHARED_MEMORY):
                at = ("checkpoint", "sharedMemory")
                found.append((at, f"is {shared_memory}; must be at least {MIN_SHARED_MEMORY}, to hold two generations"))
        except ValueError:
            shared_memory = None  # the model says so
    template = spec.get("template")
    if isinstance(template, dict):
        ranks = ranks if isinstance(ranks, int) and 1 <= ranks <= 64 else 1
        found += [
            (("template", *problem.location), problem.message)
            for problem in check_template(
                template, ranks_per_worker=ranks, shared_memory=shared_memory, grace_seconds=_grace_seconds(spec)
            )
        ]
    return found


def _grace_seconds(spec: dict[str, Any]) -> float:
    """`recovery.graceSeconds`; 0 where it is no such thing, which the model says."""
    recovery = spec.get("recovery", {})
    default = RecoveryPolicy.model_fields["grace_seconds"].default
    value = recovery.get("graceSeconds", default) if isinstance(recovery, dict) else 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= MAX_SECONDS else 0.0
