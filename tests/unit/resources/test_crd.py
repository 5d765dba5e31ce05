"""The CRDs obey the rules of structural schemas, and say what the models say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sternpost_operator.resources.base import Model
from sternpost_operator.resources.crd import DEFINITIONS, build_crd, render_crds
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec
from sternpost_operator.resources.training_job_status import TrainingJobStatus

ALLOWED = {
    "type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "required", "properties", "additionalProperties", "items", "anyOf",
}  # fmt: skip
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def crd(kind: str) -> dict[str, Any]:
    return next(build_crd(definition) for definition in DEFINITIONS if definition.kind == kind)


def schema_of(kind: str) -> dict[str, Any]:
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}.{key}")


def at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("."):
        schema = schema["items"] if name == "[]" else schema["properties"][name]
    return schema


def violations(schema: dict[str, Any], value: Any, path: str = "$") -> list[str]:  # noqa: PLR0912 - one branch a type
    """A small validator: only what the generated schemas use."""
    if schema.get("x-kubernetes-int-or-string"):
        good = isinstance(value, (int, str)) and not isinstance(value, bool)
        return [] if good and (isinstance(value, int) or re.search(schema["pattern"], value)) else [path]
    if not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return [f"{path} is no {schema['type']}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path} not in enum")
    if isinstance(value, str):
        length = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        if not length or not re.search(schema.get("pattern", ""), value):
            found.append(f"{path} is {value}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            found.append(f"{path} is {value}")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{path} has {len(value)} items")
        for index, item in enumerate(value):
            found += violations(schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict):
        found += [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name in schema.get("properties", {}):
                found += violations(schema["properties"][name], item, f"{path}.{name}")
            elif "additionalProperties" in schema:
                found += violations(schema["additionalProperties"], item, f"{path}.{name}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                found.append(f"{path}.{name} is unknown")
    return found


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What the API server makes of an object: defaults filled in from the outside in."""
    if isinstance(value, dict):
        value = dict(value)
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = child["default"]
            if name in value:
                value[name] = with_defaults(child, value[name])
    elif isinstance(value, list):
        value = [with_defaults(schema.get("items", {}), item) for item in value]
    return value


SPEC = {"workers": 2, "template": {"spec": {"containers": [{"name": "trainer", "command": ["true"], "image": "i"}]}}}


@pytest.mark.parametrize("kind", [definition.kind for definition in DEFINITIONS])
class TestStructure:
    def test_every_node_has_a_type_and_known_keywords_only(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            unknown = {key for key in node if not key.startswith("x-kubernetes-")} - ALLOWED
            assert not unknown, path
            assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")), path

    def test_objects_have_fields_or_values_of_one_type(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            assert not ("properties" in node and "additionalProperties" in node), path
            assert node.get("additionalProperties") is not False, path
            if node.get("type") == "object" and path != ".metadata":
                known = node.get("properties") or node.get("additionalProperties")
                assert known or node.get("x-kubernetes-preserve-unknown-fields"), path

    def test_a_choice_of_types_is_int_or_string_only(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            if "anyOf" in node:
                assert node["x-kubernetes-int-or-string"], path
                assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path

    def test_defaults_are_valid(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            if "default" in node:
                assert violations(node, with_defaults(node, node["default"])) == [], path

    def test_a_default_is_not_required_and_required_fields_exist(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            for name in node.get("required", []):
                assert name in node["properties"], path
                assert "default" not in node["properties"][name], f"{path}.{name}"

    def test_list_map_keys_are_required_scalars(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            for key in node.get("x-kubernetes-list-map-keys", []):
                assert node["x-kubernetes-list-type"] == "map", path
                assert key in node["items"]["required"], path
                assert node["items"]["properties"][key]["type"] in ("string", "integer"), path

    def test_fields_are_camel_case_and_rules_have_messages(self, kind: str) -> None:
        for path, node in nodes(schema_of(kind)):
            assert all(re.fullmatch("[a-z][a-zA-Z0-9]*", name) for name in node.get("properties", {})), path
            for rule in node.get("x-kubernetes-validations", []):
                assert set(rule) == {"rule", "message"}, path

    def test_names(self, kind: str) -> None:
        document = crd(kind)
        names = document["spec"]["names"]
        assert document["metadata"]["name"] == f"{names['plural']}.sternpost.dev"
        assert names["categories"] == ["sternpost"]
        assert names["singular"] == kind.lower()

    def test_printer_columns_point_at_fields(self, kind: str) -> None:
        for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]:
            if not column["jsonPath"].startswith(".metadata"):
                field = at(schema_of(kind), column["jsonPath"][1:].replace("[*]", ".[]"))
                wanted = "string" if column["type"] == "date" else column["type"]
                assert field["type"] == wanted, column


def test_short_names_differ() -> None:
    names = [name for definition in DEFINITIONS for name in build_crd(definition)["spec"]["names"]["shortNames"]]
    assert names == ["tj", "ta", "tan"]


def test_only_the_job_has_a_status_subresource() -> None:
    assert crd("TrainingJob")["spec"]["versions"][0]["subresources"] == {"status": {}}
    assert "subresources" not in crd("Attempt")["spec"]["versions"][0]


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        ("TrainingJob", "status.conditions", "type"),
        ("TrainingJob", "status.attempts", "number"),
        ("TrainingJob", "status.excludedNodes", "node"),
        ("TrainingJob", "status.suspectedNodes", "node"),
        ("TrainingJob", "status.unsentIncidents", "id"),
        ("TrainingJob", "spec.template.spec.containers", "name"),
        ("Attempt", "spec.workers", "index"),
        ("Attempt", "spec.spares", "uid"),
    ],
)
def test_lists_have_keys(kind: str, path: str, key: str) -> None:
    assert at(schema_of(kind), path)["x-kubernetes-list-map-keys"] == [key]


def test_every_list_of_the_status_has_a_bound() -> None:
    for path, node in nodes(schema_of("TrainingJob")["properties"]["status"]):
        if node.get("type") == "array":
            assert node["maxItems"] <= 100, path
        assert "default" not in node, path


def test_rules_of_the_spec() -> None:
    def rules(path: str) -> str:
        return " ".join(rule["rule"] for rule in at(schema_of("TrainingJob"), path)["x-kubernetes-validations"])

    assert "has(self.workers) != has(self.elastic)" in rules("spec")
    for field in ("workers", "elastic", "ranksPerWorker", "checkpoint.storage"):
        assert f"self.{field} == oldSelf.{field}" in rules("spec")
    assert "self == oldSelf" in rules("spec.template")
    assert "c.name == 'trainer'" in rules("spec.template")
    assert rules("spec.elastic") == "self.min <= self.max"
    for rung in ("ranks", "pods", "jobs"):
        assert f"self.{rung} >= 0" in rules("spec.recovery.budgets")
        assert at(schema_of("TrainingJob"), f"spec.recovery.budgets.{rung}")["minimum"] == 0


def test_defaults_of_the_api_server_are_those_of_the_model() -> None:
    filled = with_defaults(schema_of("TrainingJob")["properties"]["spec"], SPEC)
    assert TrainingJobSpec.model_validate(filled) == TrainingJobSpec.model_validate(SPEC)
    assert filled["recovery"]["budgets"]["ranks"] == 10


def test_what_the_models_write_is_what_the_schema_allows() -> None:
    spec = {
        **SPEC,
        "checkpoint": {"storage": "s3://bucket/x", "sharedMemory": 2**30},
        "recovery": {"rules": [{"exitCodes": [3, -9], "action": "ExcludeNode"}]},
    }
    job = TrainingJob.model_validate({"metadata": {"name": "gpt"}, "spec": spec, "status": _status()})
    assert violations(schema_of("TrainingJob"), {**job.to_wire(), "metadata": {}}) == []


def _status() -> dict[str, Any]:
    time = "2026-01-02T03:04:05.678901Z"
    record = {
        "number": 1, "id": "1-aa", "cause": "NodeLost", "rung": "pods", "node": "n", "detectedAt": time, "decidedAt": time,
        "stages": {"detect": 1.5},
    }  # fmt: skip
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": time}],
        "attempt": {"number": 2, "id": "2-bb", "issuedAt": time},
        "recovery": {"detectedAt": time, "cause": "Hang", "replace": ["uid"]},
        "progress": {"step": 3, "stepsPerSecond": 0.5, "updatedAt": time},
        "workers": {"desired": 2, "exceptions": [{"pod": "gpt-1", "reason": "gone"}]},
        "attempts": [record],
        "excludedNodes": [{"node": "n", "since": time, "until": time}],
        "suspectedNodes": [{"node": "m", "lastAt": time}],
        "unsentIncidents": [{"id": "i", "at": time, "text": "t"}],
    }


def test_the_status_of_the_schema_has_every_field_of_the_model() -> None:
    def fields(model: type[Model]) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    assert set(at(schema_of("TrainingJob"), "status")["properties"]) == fields(TrainingJobStatus)


def test_rendering_is_deterministic_and_plain() -> None:
    first, second = render_crds(), render_crds()
    assert first == second
    for definition in DEFINITIONS:
        text = first[definition.file_name]
        assert text.startswith("# Generated")
        assert yaml.safe_load(text) == build_crd(definition)
        assert "&id" not in text


def test_the_generated_files_are_up_to_date() -> None:
    folder = Path(__file__).parents[3] / "crds"
    assert {path.name: path.read_text() for path in folder.glob("*.yaml")} == render_crds(), "run: sternpost crds"
