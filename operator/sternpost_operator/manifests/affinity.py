"""Where a worker may and would rather run: the template's own wishes, and Sternpost's added to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sternpost_operator.manifests.owned import JOB_LABEL

HOST_LABEL = "kubernetes.io/hostname"

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def merge_affinity(affinity: Mapping[str, Any] | None, job: str, excluded_nodes: Iterable[str]) -> dict[str, Any]:
    """The affinity of a worker of `job`; nothing of the given one is lost.

    Workers prefer nodes of their own, for then a lost node costs one worker. This is no requirement: a job of more
    workers than nodes would never start, nor a replacement on a cluster that is nearly full.
    """
    merged = dict(affinity or {})
    excluded = sorted(set(excluded_nodes))
    if excluded:
        merged["nodeAffinity"] = _without_nodes(merged.get("nodeAffinity") or {}, excluded)
    anti = dict(merged.get("podAntiAffinity") or {})
    apart = {
        "weight": 100,
        "podAffinityTerm": {"topologyKey": HOST_LABEL, "labelSelector": {"matchLabels": {JOB_LABEL: job}}},
    }
    anti[_PREFERRED] = [*(anti.get(_PREFERRED) or []), apart]
    merged["podAntiAffinity"] = anti
    return merged


def _without_nodes(node_affinity: Mapping[str, Any], excluded: list[str]) -> dict[str, Any]:
    requirement = {"key": HOST_LABEL, "operator": "NotIn", "values": excluded}
    required = dict(node_affinity.get(_REQUIRED) or {})
    # A node is eligible when any term matches, so each must refuse the excluded ones.
    terms = [_narrowed(term, requirement) for term in required.get("nodeSelectorTerms") or []]
    required["nodeSelectorTerms"] = terms or [{"matchExpressions": [requirement]}]
    return {**node_affinity, _REQUIRED: required}


def _narrowed(term: Mapping[str, Any], requirement: Mapping[str, Any]) -> dict[str, Any]:
    if not term.get("matchExpressions") and not term.get("matchFields"):
        return dict(term)  # an empty term matches no node; with a requirement in it, it would match nearly all
    return {**term, "matchExpressions": [*(term.get("matchExpressions") or []), requirement]}
