from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from sternpost_operator.resources.base import Model
from sternpost_operator.resources.structural import UnsupportedSchemaError, structural_schema


class Inner(Model):
    """Inner words."""

    size: int = 3


class Outer(Model):
    """Outer
    words."""

    name: str
    inner: Inner = Field(default_factory=Inner)
    """Of the field."""
    maybe: Inner | None = None
    tags: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)


def test_types_are_inlined_and_null_is_dropped() -> None:
    schema = structural_schema(Outer, defaults=True)
    assert schema["description"] == "Outer words."
    assert schema["required"] == ["name"]
    inner = {"type": "object", "properties": {"size": {"type": "integer", "format": "int64", "default": 3}}}
    assert schema["properties"]["inner"] == {"description": "Of the field.", "default": {}, **inner}
    assert schema["properties"]["maybe"] == {"description": "Inner words.", **inner}
    assert schema["properties"]["tags"] == {"type": "array", "default": [], "items": {"type": "string"}}
    assert schema["properties"]["labels"]["additionalProperties"] == {"type": "string"}


def test_without_defaults() -> None:
    properties = structural_schema(Outer, defaults=False)["properties"]
    assert "default" not in properties["inner"]
    assert "default" not in properties["inner"]["properties"]["size"]


class Choice(Model):
    value: int | str


class Free(Model):
    value: dict[str, Any]


class Exclusive(Model):
    value: float = Field(gt=0)


class Endless(Model):
    child: Endless | None = None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Choice, "Choice.value: a CRD cannot express a choice"),
        (Free, "Free.value: free fields"),
        (Exclusive, "Exclusive.value: exclusiveMinimum"),
        (Endless, "nested too deeply"),
    ],
)
def test_what_a_crd_cannot_express_is_refused(model: type[Model], words: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=words):
        structural_schema(model, defaults=True)
