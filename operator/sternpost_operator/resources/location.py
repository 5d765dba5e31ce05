"""Where in a manifest something stands."""

from __future__ import annotations

from collections.abc import Iterator

Location = tuple[str | int, ...]
"""Field names and list indices, from the outside in."""

Problems = Iterator[tuple[Location, str]]
"""Where, and what is wrong."""


def format_location(location: Location) -> str:
    """`spec.containers[0].name`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text
