"""The chart as Helm renders it, without a cluster."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "sternpost"
HELM = Path(sys.executable).parent / "helm"
RELEASE = "sternpost"
NAMESPACE = "sternpost-system"

Object = dict[str, Any]


class RefusedError(Exception):
    """Helm does not render it; holds what it says."""


def helm(*arguments: str | Path) -> str:
    """Run helm; raises `RefusedError`."""
    result = subprocess.run([str(HELM), *map(str, arguments)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RefusedError(result.stdout + result.stderr)
    return result.stdout


def render(values: dict[str, Any] | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Object]:
    """All objects with these values; raises `RefusedError`."""
    return copy.deepcopy(_rendered(json.dumps(values or {}), release, namespace))


@cache
def _rendered(values: str, release: str, namespace: str) -> list[Object]:
    # A name for each key: --set-json takes the values one by one, and merges each into the defaults.
    sets = [part for key, value in json.loads(values).items() for part in ("--set-json", f"{key}={json.dumps(value)}")]
    text = helm("template", release, CHART, "--namespace", namespace, *sets)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    return [document for document in yaml.load_all(text, Loader=loader) if document]


def find(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """The one object of that kind and name; raises `AssertionError`."""
    found = [
        each
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
        and namespace in (None, each["metadata"].get("namespace"))
    ]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def pod_templates(objects: list[Object]) -> dict[str, Object]:
    """Every Pod that the objects make: name → its metadata and spec."""
    found = {}
    for each in objects:
        if each["kind"] == "Pod":
            found[each["metadata"]["name"]] = each
        elif each["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            found[each["metadata"]["name"]] = each["spec"]["template"]
    return found


def container_of(objects: list[Object], pod: str) -> Object:
    """The only container of a Pod."""
    (container,) = pod_templates(objects)[pod]["spec"]["containers"]
    return dict(container)


def environment_of(container: Object) -> dict[str, Any]:
    """Its variables: name → value, or where the value is from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def load_script(path: Path) -> ModuleType:
    """A Python file that is not part of a package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
