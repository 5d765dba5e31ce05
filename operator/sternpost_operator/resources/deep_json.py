"""JSON of any depth: Python gives up on what is nested too deeply, and the API server stores it in a template. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from sternpost_operator.resources.location import Location

MAX_DEPTH = 60
"""No resource of Kubernetes is nested a third as deeply."""

_CUT_DEPTH = MAX_DEPTH + 20
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')


def loads(text: str) -> Any:
    """As `json.loads`, and what is nested beyond all reason is cut down to null: `too_deep` still finds it too deep.

    Raises `ValueError` for what is no JSON.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        return json.loads(_cut(text))
    # What was read without harm may still be too much for whoever walks through it.
    return json.loads(_cut(text)) if _is_deeper(value, _CUT_DEPTH) else value


def _is_deeper(value: Any, levels: int) -> bool:
    here = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        here = [
            entry
            for each in here
            for entry in (each.values() if isinstance(each, dict) else each)
            if isinstance(entry, dict | list)
        ]
        if not here:
            return False
    return True


def _cut(text: str) -> str:
    """The text without anything below `_CUT_DEPTH`."""
    kept: list[str] = []
    depth, start = 0, 0
    for match in _STRUCTURE.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth == _CUT_DEPTH:
                kept += [text[start : match.start()], "null"]
        elif bracket in "]}":
            if depth == _CUT_DEPTH:
                start = match.end()
            depth -= 1
    if depth >= _CUT_DEPTH:
        raise ValueError("JSON text ends in the middle of a value")
    return "".join([*kept, text[start:]])


def too_deep(value: Any) -> Location | None:
    """Where a value is nested more than `MAX_DEPTH` levels deep, down to that level; None where it is not."""
    waiting: list[tuple[Location, Any]] = [((), value)]
    while waiting:
        location, here = waiting.pop()
        entries = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        for key, entry in entries:
            if isinstance(entry, dict | list):
                if len(location) >= MAX_DEPTH:
                    return location
                waiting.append(((*location, key), entry))
    return None
