"""What every resource model shares: camelCase on the wire, unknown fields refused, values immutable."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

GROUP = "sternpost.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["sternpost.dev/v1alpha1"] = "sternpost.dev/v1alpha1"

Time = AwareDatetime
"""An instant; RFC 3339 on the wire, always with a zone."""

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label (RFC 1123)."""


def list_map(*keys: str) -> dict[str, JsonValue]:
    """Schema extension of a list whose entries are told apart by the fields `keys` (names on the wire)."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def cel(*rules: tuple[str, str]) -> dict[str, JsonValue]:
    """Schema extension of rules for the API server, each a CEL expression and the message when it is false."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


class Model(BaseModel):
    """An immutable value that is written in camelCase and refuses unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON-able form: camelCase names, RFC 3339 times, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(Model):
    """The part of Kubernetes' ObjectMeta that Sternpost reads; the rest is kept untouched."""

    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    resource_version: str | None = None
