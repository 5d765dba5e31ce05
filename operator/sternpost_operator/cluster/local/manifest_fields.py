"""Fields of a manifest that anybody may have written: checked one by one, refused by name."""

from __future__ import annotations

from typing import Any

from sternpost_operator.cluster.local.paths import check_name
from sternpost_operator.resources import quantity

MAX_GRACE_SECONDS = 86_400.0
_MAX_ITEMS = 1000
_MAX_TEXT = 1024 * 1024


class PodSpecError(ValueError):
    """The manifest is wrong, or asks for what only a real cluster has; the message says which field and what to do."""

    def __init__(self, message: str, reason: str = "InvalidPod") -> None:
        super().__init__(message)
        self.reason = reason


def parse_bytes(value: object, where: str) -> int:
    """Bytes of a Kubernetes quantity such as `512Mi`; raises `PodSpecError`."""
    try:
        return quantity.parse_bytes(str(quantity.from_wire(value)))
    except ValueError as error:
        raise PodSpecError(f"{where}: {error}") from error


def grace_of(value: object, default: float = 30.0) -> float:
    """Seconds of grace as somebody wrote them; the default for nonsense, never more than a day."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # nan is neither
        return default
    return float(min(value, MAX_GRACE_SECONDS))


def mapping(value: object, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise PodSpecError(f"{where} is {type(value).__name__}, not an object")
    return value


def items(value: object, where: str) -> list[Any]:
    """A list, empty if there is none."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise PodSpecError(f"{where} is not a list of at most {_MAX_ITEMS}")
    return value


def text(value: object, where: str) -> str:
    """Text without a zero byte."""
    if not isinstance(value, str) or "\0" in value or len(value) > _MAX_TEXT:
        raise PodSpecError(f"{where} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PodSpecError(f"{where} is not Unicode text") from error
    return value


def name(value: object, where: str) -> str:
    """What may be part of a path."""
    try:
        return check_name(value)
    except ValueError as error:
        raise PodSpecError(f"{where}: {error}") from error


def relative_path(value: object, where: str) -> str:
    """A path that stays below its folder."""
    path = text(value, where)
    if path.startswith("/") or ".." in path.split("/"):
        raise PodSpecError(f"{where}: {path[:200]!r} leaves its volume")
    return path


def texts(value: object, where: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(item, f"{where}[{i}]") for i, item in enumerate(items(value, where)))


def text_map(value: object, where: str) -> dict[str, str]:
    """An object of texts, empty if there is none."""
    if value is None:
        return {}
    return {text(key, where): text(item, f"{where}.{key}") for key, item in mapping(value, where).items()}
