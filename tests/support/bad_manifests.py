"""TrainingJobs that nobody should be able to run, each one mistake away from a valid one. The same ones each time.

The mistakes in the job's own fields follow from the CRD's schema; those in the Pod template from a table of what Kubernetes knows
of a Pod, and of what Sternpost keeps for itself.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pod_mistakes import CONTAINER_MISTAKES, METADATA_MISTAKES, POD_MISTAKES, TYPOS

Object = dict[str, Any]
Path_ = tuple[str | int, ...]

CRD = Path(__file__).parents[2] / "crds" / "sternpost.dev_trainingjobs.yaml"
COUNT = 500
NESTED = "@nested"
_REMOVED = object()


@dataclass(frozen=True)
class BadManifest:
    """One mistake."""

    name: str
    """Unique; what was done."""
    manifest: Object
    field: str
    """What a message about it must contain; the case does not matter."""
    update: bool = False
    """Not bad in itself, but as a change of `valid()`."""
    own_name: bool = False
    """The mistake is the job's name."""
    nested: int = 0
    """How many levels stand in the place of `NESTED`."""

    def text(self, name: str | None = None) -> str:
        """As JSON; under another name, where its own is not the mistake."""
        manifest = self.manifest
        if name is not None and not self.own_name:
            manifest = {**manifest, "metadata": {**manifest["metadata"], "name": name}}
        # Put together as text: Python does not like to write what is nested so deeply.
        levels = ['{"a":', "["] * (self.nested // 2), ["}", "]"] * (self.nested // 2)
        value = "".join(levels[0]) + "1" + "".join(reversed(levels[1]))
        return json.dumps(manifest).replace(json.dumps(NESTED), value)


def valid(name: str = "good") -> Object:
    """A TrainingJob in which every field has a value that can be spoiled."""
    return {
        "apiVersion": "sternpost.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            "workers": 2,
            "spares": 1,
            "ranksPerWorker": 2,
            "suspend": False,
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
                "spec": {
                    "initContainers": [{"name": "load", "image": "busybox:1", "command": ["true"]}],
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "example/trainer:1",
                            "command": ["python3", "train.py"],
                            "args": ["--steps=3"],
                            "env": [{"name": "MODE", "value": "fast"}],
                            "ports": [{"name": "web", "containerPort": 8080}],
                            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}},
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        },
                        {"name": "helper", "image": "busybox:1"},
                    ],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "nodeSelector": {"disk": "ssd"},
                },
            },
            "recovery": {
                "budgets": {"ranks": 3, "pods": 3, "jobs": 1},
                "rules": [{"exitCodes": [3], "action": "FailJob"}],
                "graceSeconds": 3,
            },
            "checkpoint": {"storage": "s3://bucket/job", "sharedMemory": "1Gi", "keep": 3},
            "eagleEye": {"hang": {"factor": 5}, "slow": {"ratio": 1.5}},
            "memory": {"url": "", "space": "default"},
            "gang": {"scheduler": "none", "queue": ""},
            "ttlSecondsAfterFinished": 3600,
        },
    }


def bad_manifests(count: int | None = COUNT) -> list[BadManifest]:
    """`count` of them, of every sort; all with None."""
    everything = [
        *_of_the_job(),
        *_of_several_fields(),
        *_of_the_name(),
        *_of_the_template(),
        *_of_any_size(),
        *_updates(),
    ]
    names = [bad.name for bad in everything]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    if count is None:
        return everything
    assert len(everything) >= count
    chosen = random.Random(4).sample(range(len(everything)), count)  # noqa: S311 - the same ones each time
    return [everything[index] for index in sorted(chosen)]


def _changed(path: Path_, value: Any, base: Object | None = None) -> Object:
    """A valid manifest with another value at `path`; parents that are missing are made."""
    manifest = copy.deepcopy(base) if base is not None else valid()
    place: Any = manifest
    for step, following in itertools.pairwise(path):
        empty: Any = [] if isinstance(following, int) else {}
        place = place[step] if isinstance(place, list) else place.setdefault(step, empty)
    last = path[-1]
    if value is _REMOVED:
        del place[last]
    elif isinstance(place, list) and isinstance(last, int) and last >= len(place):
        place.append(value)
    else:
        place[last] = value
    return manifest


def _shown(value: Any) -> str:
    text = "(removed)" if value is _REMOVED else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}… ({len(text)})"


def _bad(path: Path_, value: Any, field: str | None = None, **more: Any) -> BadManifest:
    last = next(str(step) for step in reversed(path) if isinstance(step, str))
    where = ".".join(str(step) for step in path)
    return BadManifest(
        f"{where} = {_shown(value)}", _changed(path, value, more.pop("base", None)), field or last, **more
    )


def _of_the_job() -> Iterator[BadManifest]:
    definition = yaml.safe_load(CRD.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    elastic = _changed(
        ("spec", "elastic"), {"min": 1, "max": 2, "waitSeconds": 5}, _changed(("spec", "workers"), _REMOVED)
    )
    for path, part in _walk(schema, ("spec",)):
        base = elastic if "elastic" in path else None
        for value in _wrong(part):
            yield _bad(path, value, base=base)
        for required in part.get("required", []):
            if path != ("spec",):
                yield _bad((*path, required), _REMOVED, base=base)


def _walk(schema: Object, path: Path_) -> Iterator[tuple[Path_, Object]]:
    for name, part in schema.get("properties", {}).items():
        if name == "template":
            continue
        yield (*path, name), part
        yield from _walk(part, (*path, name))
    if "items" in schema:
        yield (*path, 0), schema["items"]
        yield from _walk(schema["items"], (*path, 0))


_OF_ANOTHER_TYPE: dict[str, tuple[Any, ...]] = {
    "integer": ("many", True, [], {}, 2.5),
    "number": ("many", True, [], {}),
    "string": (7, False, [], {}),
    "boolean": ("yes", 1, [], ""),
    "array": ("one", 5, {}),
    "object": ("text", 3, [], True),
}


def _wrong(schema: Object) -> Iterator[Any]:
    """Values that a schema does not admit."""
    if schema.get("x-kubernetes-int-or-string"):
        yield from (True, [], {}, "much", "-1Gi", "1 Gi", "1Gib", "9" * 40, "1e3Gi", "Ⅷ Gi")
        return
    yield from _OF_ANOTHER_TYPE[schema["type"]]
    if "minimum" in schema:
        yield schema["minimum"] - 1
    if "maximum" in schema:
        yield from (schema["maximum"] + 1, 10**30)
    if "enum" in schema or "pattern" in schema:
        yield from ("🦀", " ", "Nope\n")
    if "maxLength" in schema:
        yield "x" * (schema["maxLength"] + 1)
    if "maxItems" in schema:
        yield [None] * (schema["maxItems"] + 1)
    if schema.get("minItems"):
        yield []


def _of_several_fields() -> Iterator[BadManifest]:
    size = {"min": 1, "max": 2}
    yield _bad(("spec", "elastic"), size, "workers")
    yield _bad(("spec", "workers"), _REMOVED)
    smaller = _changed(("spec", "workers"), _REMOVED)
    for low, high in ((3, 2), (10_000, 1), (2, 1)):
        yield _bad(("spec", "elastic"), {"min": low, "max": high}, "min", base=smaller)
    for value in ("1Mi", "8191Ki", "0", 5, "7.9Mi"):
        yield _bad(("spec", "checkpoint", "sharedMemory"), value)
    limit = ("spec", "template", "spec", "containers", 0, "resources", "limits", "memory")
    for value in ("1Gi", "512Mi", "1", "1048576Ki"):
        yield _bad(limit, value, "memory")
    grace = ("spec", "template", "spec", "terminationGracePeriodSeconds")
    for value in (0, 1, 37):
        yield _bad(grace, value)
    for storage in (
        "", "bucket/job", "ftp://host/x", "s3:/bucket", "s3://", "s3://bucket/$(HOME)", "http://x", "file:///a b", "s3 ://b",
        "file:///nowhere", "file://./relative", "file:///data/../elsewhere", "file:///datax",
    ):  # fmt: skip
        yield _bad(("spec", "checkpoint", "storage"), storage)
    for url in ("memory:8765", "ftp://memory", "http://", "javascript:x"):
        yield _bad(("spec", "memory", "url"), url)


def _of_the_name() -> Iterator[BadManifest]:
    for name in (
        "", "x" * 56, "x" * 63, "x" * 64, "x" * 300, "Upper", "under_score", "1digit", "9", "-dash", "dash-", "a.b", "a b",
        "naïve", "日本", "a/b", "..", "a\nb", 5, True, [], {},
    ):  # fmt: skip
        yield _bad(("metadata", "name"), name, own_name=True)
    for labels in ({"a b": "c"}, {"a": "b c"}, {"a": "x" * 64}, {"a": 1}, {"": "x"}, ["a"], {"-a": "b"}):
        yield _bad(("metadata", "labels"), labels)
    for notes in ({"a b": "c"}, {"a": 1}, {"a": "x" * 270_000}, ["a"]):
        yield _bad(("metadata", "annotations"), notes)
    for version in ("v1", "sternpost.dev/v9", "", 3, "sternpost.dev"):
        yield _bad(("apiVersion",), version)
    for kind in ("Trainingjob", "Job", "", 3):
        yield _bad(("kind",), kind)
    for spec in ({}, [], "x", 3, None):
        yield _bad(("spec",), spec, "template" if spec == {} else "spec")
    for typo in ("worker", "Workers", "checkpoints", "eagle_eye", "replicas"):
        yield _bad(("spec", typo), 2)
    for path, typo in (
        (("recovery",), "grace"),
        (("checkpoint",), "uri"),
        (("eagleEye", "hang"), "seconds"),
        (("memory",), "URL"),
    ):
        yield _bad(("spec", *path, typo), "3")


def _of_the_template() -> Iterator[BadManifest]:
    template = ("spec", "template")
    for value in (
        "x",
        [],
        3,
        {},
        {"spec": {}},
        {"spec": {"containers": []}},
        {"spec": {"containers": "x"}},
        {"spec": []},
    ):
        yield _bad(template, value)
    pod, trainer = (*template, "spec"), (*template, "spec", "containers", 0)
    for at, table in ((template, METADATA_MISTAKES), (pod, POD_MISTAKES), (trainer, CONTAINER_MISTAKES)):
        for path, values, field in table:
            for value in values:
                yield _bad((*at, *path), value, field)
    for path in TYPOS:
        yield _bad((*pod, *path), "x")
    for required in ("command", "image", "name"):
        # Without a name the API server cannot tell containers apart; the trainer is missing, too.
        yield _bad((*trainer, required), _REMOVED)
    yield _bad((*trainer, "name"), "Trainer", "trainer")
    yield _bad((*pod, "containers", 1, "image"), _REMOVED)
    yield _bad((*pod, "initContainers", 0, "image"), _REMOVED)


def _of_any_size() -> Iterator[BadManifest]:
    argument = ("spec", "template", "spec", "containers", 0, "args", 0)
    for size in (1_700_000, 3_300_000):
        yield _bad(argument, "x" * size, "args")
    note = ("spec", "template", "metadata", "annotations", "note")
    yield _bad(note, "x" * 300_000, "annotations")
    for depth in (70, 300, 900, 3000, 20_000):
        manifest = _changed(("spec", "template", "spec", "novel"), NESTED)
        yield BadManifest(f"{depth} levels", manifest, "novel", nested=depth)
    containers = ("spec", "template", "spec", "containers")
    trainer = valid()["spec"]["template"]["spec"]["containers"][0]
    more = [{"name": f"helper-{index}", "image": "busybox"} for index in range(40)]
    yield _bad(containers, [trainer, *more])
    yield _bad((*containers, 0, "command"), ["x"] * 1100)
    yield _bad((*containers, 0, "env", 0, "name"), "X" * 300_000 + "=", "name")
    volumes = [{"name": name, "emptyDir": {}} for name in ("data", *map("v{}".format, range(300)))]
    yield _bad(("spec", "template", "spec", "volumes"), volumes)


def _updates() -> Iterator[BadManifest]:
    """Changes of what cannot be changed."""
    pod = ("spec", "template", "spec")
    changes: Iterable[tuple[Path_, Any]] = (
        (("spec", "workers"), 3),
        (("spec", "workers"), 1),
        (("spec", "ranksPerWorker"), 1),
        (("spec", "checkpoint", "storage"), "s3://bucket/other"),
        (("spec", "checkpoint"), _REMOVED),
        ((*pod, "containers", 0, "image"), "example/trainer:2"),
        ((*pod, "containers", 0, "command"), ["python3", "other.py"]),
        ((*pod, "containers", 0, "args", 0), "--steps=4"),
        ((*pod, "containers", 0, "env", 0, "value"), "slow"),
        ((*pod, "containers", 0, "resources"), {}),
        ((*pod, "containers", 1), _REMOVED),
        ((*pod, "nodeSelector", "disk"), "hdd"),
        ((*pod, "tolerations"), []),
        ((*pod, "priorityClassName"), "high"),
        (("spec", "template", "metadata", "labels", "team"), "b"),
        (("spec", "template", "metadata"), _REMOVED),
    )
    for path, value in changes:
        field = next((name for name in ("template", "storage") if name in path), None)
        made = _bad(path, value, field or str(path[1]), update=True)
        yield BadManifest(f"change of {made.name}", made.manifest, made.field, update=True)
    elastic = _changed(("spec", "elastic"), {"min": 1, "max": 2}, _changed(("spec", "workers"), _REMOVED))
    yield BadManifest("change of workers to elastic", elastic, "workers", update=True)
