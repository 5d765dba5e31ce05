"""From a TrainingJob as the API server stores it to one that can be run, or to what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sternpost_operator.cluster.base import InvalidJobError
from sternpost_operator.resources.base import API_VERSION
from sternpost_operator.resources.explain import explain_error
from sternpost_operator.resources.location import Location, format_location
from sternpost_operator.resources.manifest import check_wire
from sternpost_operator.resources.training_job import TrainingJob

MAX_PROBLEMS = 20
MAX_FIELD = 256


def accept(manifest: Mapping[str, Any]) -> TrainingJob:
    """The job; raises `InvalidJobError` with the fields that are wrong.

    Nothing in the status makes a job invalid that a newer or older operator may have written: fields that this one does not know
    are left out.
    """
    wire = {
        **_without_nulls(manifest),
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
    }
    problems = check_wire(wire)
    try:
        job = _parse(wire)
    except ValidationError as error:
        problems += [explain_error(TrainingJob, detail) for detail in error.errors(include_url=False)]
        raise InvalidJobError(_worded(problems)) from None
    if problems:
        raise InvalidJobError(_worded(problems))
    return job


def _parse(wire: dict[str, Any]) -> TrainingJob:
    try:
        return TrainingJob.model_validate(wire)
    except ValidationError as error:
        unknown = [
            detail["loc"]
            for detail in error.errors(include_url=False, include_input=False)
            if detail["type"] == "extra_forbidden" and detail["loc"][0] == "status"
        ]
        if not unknown:
            raise
        return TrainingJob.model_validate(_without(wire, unknown))


def _without(value: Any, locations: list[tuple[int | str, ...]]) -> Any:
    """A copy without the fields at these places."""
    here = {location[0] for location in locations if len(location) == 1}
    below: dict[int | str, list[tuple[int | str, ...]]] = {}
    for location in locations:
        if len(location) > 1:
            below.setdefault(location[0], []).append(location[1:])
    if isinstance(value, dict):
        return {
            key: _without(item, below[key]) if key in below else item for key, item in value.items() if key not in here
        }
    if isinstance(value, list):
        return [_without(item, below[index]) if index in below else item for index, item in enumerate(value)]
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _worded(problems: list[tuple[Location, str]]) -> tuple[str, ...]:
    found = dict.fromkeys(f"{format_location(location)[:MAX_FIELD]}: {message}" for location, message in problems)
    return tuple(found)[:MAX_PROBLEMS]
