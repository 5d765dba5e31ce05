"""values.yaml, its comments, its schema and the templates say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from helm_chart import CHART, ROOT, RefusedError, render
from jsonschema import Draft7Validator

VALUES_TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(VALUES_TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
TEMPLATES = "".join(
    path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").rglob("*")) if path.is_file()
)


def documented() -> Iterator[tuple[str, str]]:
    """Path and comment of each `# --` in values.yaml, as helm-docs finds them: the comment stands right above its key."""
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in VALUES_TEXT.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            if bare.startswith("# --"):
                comment = [bare.removeprefix("# --").strip()]
            elif comment:
                comment.append(bare.removeprefix("#").strip())
            continue
        match = re.match(r"^( *)([A-Za-z0-9_]+):", line)
        if match is None:
            comment = []
            continue
        depth = len(match.group(1))
        stack = [entry for entry in stack if entry[0] < depth] + [(depth, match.group(2))]
        if comment:
            yield ".".join(name for _, name in stack), " ".join(comment)
        comment = []


DOCUMENTED = dict(documented())


def leaves(value: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths that users set: those that are documented, and whatever no documented path covers."""
    for name, child in value.items():
        own = f"{path}{name}"
        if own not in DOCUMENTED and isinstance(child, dict) and child:
            yield from leaves(child, f"{own}.")
        else:
            yield own


LEAVES = list(leaves(VALUES))


def all_paths(value: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, child in value.items():
        yield f"{path}{name}"
        if isinstance(child, dict):
            yield from all_paths(child, f"{path}{name}.")


ALL_PATHS = list(all_paths(VALUES))


def test_there_are_values() -> None:
    assert len(LEAVES) > 80


def test_every_value_is_documented() -> None:
    assert [path for path in LEAVES if not DOCUMENTED.get(path)] == []


def test_only_values_are_documented() -> None:
    assert sorted(set(DOCUMENTED) - set(LEAVES)) == []


def is_used(path: str) -> bool:
    """Whether a template names it, with its component's values under a name of their own in between."""
    component, _, rest = path.partition(".")
    own = {
        "operator": ("$values", ".Values.operator"),
        "memory": ("$values", ".Values.memory"),
        "redis": ("$values", ".Values.redis"),
    }.get(component, ())
    names = [f".Values.{path}", *(f"{prefix}.{rest}" for prefix in own)]
    if path.endswith((".repository", ".pullPolicy", ".tag")):
        names.append(f".Values.{path.rpartition('.')[0]})")  # sternpost.image takes the image as a whole
        names += [f"$values.{rest.rpartition('.')[0]}"]
    return any(re.search(re.escape(name) + r"(?![A-Za-z0-9])", TEMPLATES) for name in names)


def test_every_value_is_used() -> None:
    assert [path for path in LEAVES if not is_used(path)] == []


def test_templates_use_no_value_that_is_not_there() -> None:
    used = set(re.findall(r"(?<![A-Za-z])\.Values\.([A-Za-z.]+[A-Za-z])", TEMPLATES))
    missing = []
    for path in sorted(used):
        value: Any = VALUES
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                missing.append(path)
                break
            value = value[name]
    assert missing == []


def test_the_page_for_users_names_values_that_are_there() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z]+)+)(?:\.\*)?`", row)}
    named |= set(re.findall(r"`([a-z][A-Za-z]+\.[A-Za-z.]+)=", page))
    assert len(named) > 10
    assert [name for name in sorted(named) if not any(f"{leaf}.".startswith(f"{name}.") for leaf in ALL_PATHS)] == []


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["$defs"][reference.rpartition("/")[2]] if reference else schema


def paths_of(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, child in resolved(schema).get("properties", {}).items():
        own = f"{path}{name}"
        if own in LEAVES or "properties" not in resolved(child):
            yield own
        else:
            yield from paths_of(child, f"{own}.")


def test_the_schema_has_every_value_and_no_other() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert sorted(paths_of(SCHEMA)) == sorted([*LEAVES, "global"])


def test_the_defaults_pass_the_schema() -> None:
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(VALUES)] == []


def nested(path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize("path", LEAVES)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(path: str) -> None:
    wrong = [[0]] if path not in {"operator.watchNamespaces", "metrics.namespaces", "nodeExclusion.conditions"} else "x"
    errors = list(Draft7Validator(SCHEMA).iter_errors(nested(path, wrong)))
    assert errors, f"{path} takes {wrong!r}"
    assert ".".join(map(str, errors[0].absolute_path)).startswith(path)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("operator.replica", 3, "operator: Additional property replica "),
        ("oprator.replicas", 3, "Additional property oprator "),
        ("operator.logLevel", "loud", "operator.logLevel"),
        ("operator.metricsPort", 80, "operator.metricsPort"),
        ("operator.watchNamespaces", ["Team A"], "operator.watchNamespaces.0"),
        ("operator.extraEnv", [{"value": "nameless"}], "operator.extraEnv.0: name is required"),
        ("image.pullPolicy", "always", "image.pullPolicy"),
        ("image.tag", "no spaces please", "image.tag"),
        ("image.pullSecrets", [{"nam": "x"}], "image.pullSecrets.0"),
        ("nodeExclusion.conditions", ["GpuLost"], "nodeExclusion.conditions.0"),
        ("redis.external.url", "redis://:secret@host:6379/0", "redis.external.url"),
        ("redis.maxMemory", "512MiB", "redis.maxMemory"),
        ("redis.password", "two words", "redis.password"),
        ("memory.grants", {"system:serviceaccount:a:b": "default"}, "memory.grants.system:serviceaccount:a:b"),
        ("memory.grants", {"reader": ["default"]}, "memory.grants"),
        ("metrics.interval", "often", "metrics.interval"),
        ("metrics.podMonitor.ranksPerWorker", 65, "metrics.podMonitor.ranksPerWorker"),
    ],
)
def test_helm_refuses_a_bad_value_and_names_it(path: str, value: Any, named: str) -> None:
    with pytest.raises(RefusedError) as caught:
        render(nested(path, value))
    assert named in str(caught.value)
