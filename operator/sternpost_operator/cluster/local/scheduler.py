"""Which node takes a Pod. Pure, and no more than what a job on one machine needs of Kubernetes' scheduler."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True)
class PlacedPod:
    """A Pod that is on a node and has not ended."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "default"
    same_job: bool = False


@dataclass(frozen=True)
class Candidate:
    """A node, as the scheduler sees it."""

    name: str
    ready: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    """Beside `kubernetes.io/hostname`, which every node has."""
    pods: Sequence[PlacedPod] = ()

    @property
    def all_labels(self) -> dict[str, str]:
        """With the host name."""
        return {HOSTNAME: self.name, **self.labels}

    @property
    def of_job(self) -> int:
        """How many Pods of the job it has."""
        return sum(pod.same_job for pod in self.pods)


@dataclass(frozen=True)
class Placement:
    """The node to take, or, in words, why there is none."""

    node: str | None
    message: str = ""


def place(manifest: Mapping[str, Any], candidates: Sequence[Candidate], *, workers: int) -> Placement:
    """Choose a node for a Pod of a job that needs `workers` Pods to train.

    Honoured are `nodeSelector`, node affinity and required anti-affinity by host name. One node takes one Pod of a job,
    or, where there are fewer nodes than workers, as many as an even spread needs; spares never double up, for they
    would be lost together with the worker that they stand in for. Nodes with few Pods of the job come first, then
    preferred ones, then by name.
    """
    spec = _mapping(manifest.get("spec"))
    metadata = _mapping(manifest.get("metadata"))
    refused: dict[str, int] = {}
    eligible: list[Candidate] = []
    for candidate in candidates:
        reason = _refusal(candidate, spec, str(metadata.get("namespace", "default")))
        if reason:
            refused[reason] = refused.get(reason, 0) + 1
        else:
            eligible.append(candidate)
    able = sum(candidate.ready and _matches_node(candidate, spec) for candidate in candidates)
    limit = max(1, math.ceil(workers / able)) if able else 1
    free = [candidate for candidate in eligible if candidate.of_job < limit]
    if len(eligible) > len(free):
        refused["has a Pod of this job already" if limit == 1 else f"has {limit} Pods of this job already"] = len(
            eligible
        ) - len(free)
    if not free:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
        return Placement(None, f"0 of {len(candidates)} nodes can take it" + (f": {why}" if why else ""))
    best = min(free, key=lambda node: (node.of_job, -_preference(node, spec), _natural(node.name)))
    return Placement(best.name)


def _refusal(candidate: Candidate, spec: Mapping[str, Any], namespace: str) -> str:
    if not candidate.ready:
        return "not ready"
    if not _matches_node(candidate, spec):
        return "excluded by node selector or affinity"
    anti_affinity = _mapping(_mapping(spec.get("affinity")).get("podAntiAffinity"))
    for term in _mappings(anti_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")):
        if term.get("topologyKey") == HOSTNAME and any(
            pod.namespace == namespace and _matches_selector(pod.labels, _mapping(term.get("labelSelector")))
            for pod in candidate.pods
        ):
            return "excluded by Pod anti-affinity"
    return ""


def _matches_node(candidate: Candidate, spec: Mapping[str, Any]) -> bool:
    labels = candidate.all_labels
    if any(labels.get(str(key)) != value for key, value in _mapping(spec.get("nodeSelector")).items()):
        return False
    affinity = _mapping(_mapping(spec.get("affinity")).get("nodeAffinity"))
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    terms = _mappings(_mapping(required).get("nodeSelectorTerms"))
    return any(_matches_term(candidate, term) for term in terms)


def _matches_term(candidate: Candidate, term: Mapping[str, Any]) -> bool:
    """All its expressions; one without any matches nothing, as in Kubernetes."""
    expressions = _mappings(term.get("matchExpressions"))
    fields = _mappings(term.get("matchFields"))
    if not expressions and not fields:
        return False
    return all(_matches(candidate.all_labels, expression) for expression in expressions) and all(
        _matches({"metadata.name": candidate.name}, expression) for expression in fields
    )


def _matches_selector(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    wanted = _mapping(selector.get("matchLabels"))
    return all(labels.get(str(key)) == value for key, value in wanted.items()) and all(
        _matches(labels, expression) for expression in _mappings(selector.get("matchExpressions"))
    )


def _matches(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    key = str(expression.get("key"))
    values = expression.get("values")
    values = [str(value) for value in values] if isinstance(values, list) else []
    found = labels.get(key)
    match expression.get("operator"):
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt" as operator:
            return _compares(found, values, operator)
    return False  # an operator nobody knows keeps the Pod away rather than put it anywhere


def _compares(found: str | None, values: Sequence[str], operator: str) -> bool:
    try:
        number, bound = int(found or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else number < bound


def _preference(candidate: Candidate, spec: Mapping[str, Any]) -> int:
    affinity = _mapping(_mapping(spec.get("affinity")).get("nodeAffinity"))
    return sum(
        term["weight"]
        for term in _mappings(affinity.get("preferredDuringSchedulingIgnoredDuringExecution"))
        if isinstance(term.get("weight"), int) and _matches_term(candidate, _mapping(term.get("preference")))
    )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """`node-2` before `node-10`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
