"""What is wrong with a Pod template, as far as Sternpost can tell; other fields are the API server's business."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sternpost_operator.resources import reserved
from sternpost_operator.resources.explain import shown
from sternpost_operator.resources.location import Location, Problems, format_location
from sternpost_operator.resources.template_containers import check_containers, check_trainer, check_volumes
from sternpost_operator.resources.template_quantities import check_quantities
from sternpost_operator.resources.termination import termination_seconds

MAX_NAME = 253
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_METADATA_FIELDS = ("annotations", "labels")
_SET_BY_STERNPOST = {
    "nodeName": "it would bypass the scheduler, and no node could be left; use nodeSelector or affinity",
    "hostname": "Sternpost sets it to the Pod's name, by which the workers find each other",
    "subdomain": "Sternpost sets it to the name of the job's Service, by which the workers find each other",
    "ephemeralContainers": "they cannot be part of a new Pod",
}


class TemplateError(ValueError):
    """A template that no Pod can be built from; the message names each field."""


@dataclass(frozen=True)
class TemplateProblem:
    """A field of the template, and what is wrong with it."""

    location: Location
    message: str


def check_template(
    template: Mapping[str, Any],
    *,
    ranks_per_worker: int = 1,
    shared_memory: str | None = None,
    grace_seconds: float = 0,
) -> list[TemplateProblem]:
    """Everything that is wrong, in the order of the fields; an empty list when a Pod can be built.

    `shared_memory` is the quantity that the job's checkpoints ask for, None without checkpoints; `grace_seconds` is what its
    ranks have between SIGTERM and SIGKILL.
    """
    least = termination_seconds(grace_seconds, checkpoints=shared_memory is not None)
    return [TemplateProblem(*problem) for problem in _template(template, ranks_per_worker, shared_memory, least)]


def require_template(
    template: Mapping[str, Any],
    *,
    ranks_per_worker: int = 1,
    shared_memory: str | None = None,
    grace_seconds: float = 0,
) -> None:
    """Raise `TemplateError` if anything is wrong."""
    problems = check_template(
        template, ranks_per_worker=ranks_per_worker, shared_memory=shared_memory, grace_seconds=grace_seconds
    )
    if problems:
        raise TemplateError(
            "; ".join(f"{format_location(problem.location)}: {problem.message}" for problem in problems)
        )


def _template(template: Mapping[str, Any], ranks: int, shared_memory: str | None, least_grace: int) -> Problems:
    for field in template:
        if field not in ("metadata", "spec"):
            yield (field,), "unknown field; a template has metadata and spec"
    yield from _metadata(template.get("metadata"))
    spec = template.get("spec")
    if not isinstance(spec, dict):
        yield ("spec",) if "spec" in template else (), "a template needs spec, an object with containers"
        return
    yield from _pod_fields(spec, least_grace)
    volumes, volume_problems = check_volumes(spec.get("volumes"))
    yield from volume_problems
    yield from check_containers(spec, volumes, ranks)
    yield from check_trainer(spec, shared_memory)
    yield from check_quantities(spec)


def _metadata(metadata: Any) -> Problems:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        yield ("metadata",), "must be an object"
        return
    for field, value in metadata.items():
        at: Location = ("metadata", field)
        if field not in _METADATA_FIELDS:
            if field != "creationTimestamp" or value is not None:
                yield at, "a worker's metadata may have labels and annotations only; Sternpost sets its name and owner"
            continue
        if value is None:
            continue
        if not isinstance(value, dict):
            yield at, "must be an object"
            continue
        for key, text in value.items():
            if key.startswith(reserved.LABEL_PREFIX):
                yield (*at, key), f"names that begin with {reserved.LABEL_PREFIX} are Sternpost's own"
            if not isinstance(text, str):
                yield (*at, key), f"is {shown(text)}; must be a string, put it in quotes"


def _pod_fields(spec: Mapping[str, Any], least_grace: int) -> Problems:
    policy = spec.get("restartPolicy")
    if policy is not None and policy != "OnFailure":
        yield (
            ("spec", "restartPolicy"),
            f"is {policy!r}; must be OnFailure or left out: the launcher is restarted in its Pod",
        )
    if spec.get("hostNetwork") not in (None, False):
        yield ("spec", "hostNetwork"), "must be left out: two workers of a node would need the same ports"
    for field, why in _SET_BY_STERNPOST.items():
        if spec.get(field) not in (None, ""):
            yield ("spec", field), f"must be left out: {why}"
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        yield ("spec", "terminationGracePeriodSeconds"), "must be a whole number of seconds"
    elif grace is not None and grace < least_grace:
        yield (
            ("spec", "terminationGracePeriodSeconds"),
            f"is {grace}; must be at least {least_grace} or left out: recovery.graceSeconds, and what the sidecars need then",
        )
    if spec.get("securityContext") is not None and not isinstance(spec["securityContext"], dict):
        yield ("spec", "securityContext"), "must be an object"
    for field in ("serviceAccountName", "serviceAccount"):
        account = spec.get(field)
        if account and not (isinstance(account, str) and len(account) <= MAX_NAME and _SUBDOMAIN.fullmatch(account)):
            yield (
                ("spec", field),
                f"is {shown(account)}; must be the name of a ServiceAccount: lower-case letters, digits, '-', '.'",
            )
    yield from _objects(spec, "affinity", ("nodeAffinity", "podAntiAffinity"))


def _objects(spec: Mapping[str, Any], field: str, parts: tuple[str, ...]) -> Problems:
    value = spec.get(field)
    if value is None:
        return
    if not isinstance(value, dict):
        yield ("spec", field), "must be an object"
        return
    for part in parts:
        if value.get(part) is not None and not isinstance(value[part], dict):
            yield ("spec", field, part), "must be an object"
        elif value.get(part):
            yield from _affinity(("spec", field, part), value[part])


def _affinity(at: Location, affinity: Mapping[str, Any]) -> Problems:
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    if affinity.get(preferred) is not None and not isinstance(affinity[preferred], list):
        yield (*at, preferred), "must be a list"
    if at[-1] != "nodeAffinity" or affinity.get(required) is None:
        return
    selector = affinity[required]
    terms = selector.get("nodeSelectorTerms") if isinstance(selector, dict) else None
    if not isinstance(terms, list) or not terms or not all(isinstance(term, dict) for term in terms):
        yield (*at, required), "needs nodeSelectorTerms, a list of at least one object"
        return
    for index, term in enumerate(terms):
        for field in ("matchExpressions", "matchFields"):
            if term.get(field) is not None and not isinstance(term[field], list):
                yield (*at, required, "nodeSelectorTerms", index, field), "must be a list"
