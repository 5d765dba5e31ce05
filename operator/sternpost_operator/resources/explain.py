"""Validation errors in words: what a field is, and what it may be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sternpost_operator.resources.location import Location

_SHOWN = 80
_MEANINGS = {
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and '-', a letter or digit first and last",
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "lower-case letters, digits and '-', a letter or digit first and last",
    r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$": "a number and a unit, such as 512Mi",
    r"^(file|s3|gs|az)://[^$\s]+$": "a URI that begins with file://, s3://, gs:// or az://, without blanks and '$'",
    r"^(https?://.+)?$": "a URL that begins with http:// or https://",
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "finite_number": "a finite number",
}


def explain_error(model: type[BaseModel], error: ErrorDetails) -> tuple[Location, str]:
    """Where, and what is wrong, for an error in what was to become `model`."""
    location: Location = error["loc"]
    return location, _message(model, location, error)


def _message(model: type[BaseModel], location: Location, error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return unknown_field(str(location[-1]), field_names(model, location[:-1]))
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return f"is {shown(error['input'])}; {_wanted(error)}"


def _wanted(error: ErrorDetails) -> str:
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    what = "characters" if kind.startswith("string") else "entries"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return f"must be {_MEANINGS.get(pattern, f'of the form {pattern}')}"
    templates = {
        "expected": "must be one of {}",
        "ge": "must be at least {}",
        "le": "must be at most {}",
        "min_length": f"must have at least {{}} {what}",
        "max_length": f"must have at most {{}} {what}",
    }
    for key, template in templates.items():
        if key in context:
            return template.format(str(context[key]).replace(" or ", ", "))
    return error["msg"]


def shown(value: object) -> str:
    """A value as a message shows it: short, whatever it is."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def unknown_field(name: str, known: list[str]) -> str:
    """What to say of a field that there is none of."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.replace("_", "").lower(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"unknown field; did you mean {folded[close[0]]}?"
    return f"unknown field; allowed are {', '.join(sorted(known))}" if known else "unknown field"


def field_names(model: type[BaseModel], location: Location) -> list[str]:
    """Names on the wire of the fields at a place in a model; empty if there is no model."""
    found: type[BaseModel] | None = model
    for part in location:
        if found is None:
            return []
        if isinstance(part, int):
            continue
        found = next(
            (
                _model_in(field.annotation)
                for name, field in found.model_fields.items()
                if (field.alias or name) == part
            ),
            None,
        )
    return [] if found is None else [field.alias or name for name, field in found.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for model in map(_model_in, get_args(annotation)) if model is not None), None)
