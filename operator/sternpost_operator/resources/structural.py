"""From pydantic's JSON schema to the structural OpenAPI v3 schema that Kubernetes accepts in a CRD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_COPIED = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "default",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
_TRANSLATED = (
    "$ref",
    "$defs",
    "title",
    "description",
    "const",
    "anyOf",
    "additionalProperties",
    "properties",
    "required",
    "items",
)
_FORMATS = {"integer": "int64", "number": "double"}
_MAX_DEPTH = 32


class UnsupportedSchemaError(ValueError):
    """A model uses what a CRD cannot express; the message names the place."""


def structural_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The schema of a model as it is on the wire.

    Types are inlined; an optional field is one that may be left out, never null. With `defaults`, those of the model are
    set, also for whole objects, so that a stored resource shows every value that counts; a status goes without, for
    nobody but its writer knows it. Raises `UnsupportedSchemaError`.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(schema.get("$defs", {}), defaults=defaults).convert(schema, model.__name__, 0)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, schema: Schema, path: str, depth: int) -> Schema:
        if depth > _MAX_DEPTH:
            raise UnsupportedSchemaError(f"{path}: nested too deeply; a CRD cannot express recursive types")
        schema, _ = self._resolve(schema, path)
        unknown = sorted(set(schema) - set(_COPIED) - set(_TRANSLATED))
        if unknown:
            raise UnsupportedSchemaError(f"{path}: {', '.join(unknown)} cannot be expressed in a CRD")
        result: Schema = {}
        if "description" in schema:
            result["description"] = " ".join(schema["description"].split())
        for key in _COPIED:
            if key in schema and (self._defaults or key != "default"):
                result[key] = schema[key]
        if "const" in schema:
            result["enum"] = [schema["const"]]
        if result.get("x-kubernetes-int-or-string"):
            result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        elif "type" not in result:
            raise UnsupportedSchemaError(f"{path}: a type is needed, and exactly one beside null")
        elif result["type"] in _FORMATS:
            result["format"] = _FORMATS[result["type"]]
        if "items" in schema:
            result["items"] = self.convert(schema["items"], f"{path}[]", depth + 1)
        self._add_fields(result, schema, path, depth)
        return result

    def _add_fields(self, result: Schema, schema: Schema, path: str, depth: int) -> None:
        required = schema.get("required", [])
        if required:
            result["required"] = list(required)
        properties: Schema = {}
        for name, field in schema.get("properties", {}).items():
            converted = self.convert(field, f"{path}.{name}", depth + 1)
            _, nullable = self._resolve(field, path)
            if self._defaults and not nullable and name not in required and "default" not in converted:
                converted["default"] = {"object": {}, "array": []}.get(converted["type"])
                if converted["default"] is None:
                    raise UnsupportedSchemaError(f"{path}.{name}: a field that may be left out needs a default")
            properties[name] = converted
        if properties:
            result["properties"] = properties
        values = schema.get("additionalProperties", False)
        # A CRD has either fields or values of one type; fields that are not listed are pruned anyway.
        if isinstance(values, dict):
            if properties:
                raise UnsupportedSchemaError(f"{path}: fields and additionalProperties exclude each other in a CRD")
            result["additionalProperties"] = self.convert(values, f"{path}.*", depth + 1)
        elif values and not result.get("x-kubernetes-preserve-unknown-fields"):
            raise UnsupportedSchemaError(f"{path}: free fields need x-kubernetes-preserve-unknown-fields")

    def _resolve(self, schema: Schema, path: str) -> tuple[Schema, bool]:
        """Follow references and take null away; and whether null was allowed. What stands beside a reference wins."""
        nullable = False
        while True:
            if "$ref" in schema:
                name = schema["$ref"].removeprefix("#/$defs/")
                schema = {**self._definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}}
            elif "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
                choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
                if len(choices) != 1:
                    raise UnsupportedSchemaError(f"{path}: a CRD cannot express a choice of types")
                nullable = nullable or len(choices) < len(schema["anyOf"])
                rest = {key: value for key, value in schema.items() if key != "anyOf"}
                if rest.get("default", ...) is None:
                    del rest["default"]
                schema = {**choices[0], **rest}
            else:
                return schema, nullable
