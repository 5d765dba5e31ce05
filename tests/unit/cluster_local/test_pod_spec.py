from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.cluster.local.manifest_fields import PodSpecError, grace_of, parse_bytes
from sternpost_operator.cluster.local.pod_spec import VolumeKind, parse_pod

Build = Any

names = st.sampled_from(
    [
        "metadata",
        "spec",
        "name",
        "uid",
        "nodeName",
        "containers",
        "initContainers",
        "command",
        "args",
        "env",
        "value",
        "valueFrom",
        "fieldRef",
        "fieldPath",
        "secretKeyRef",
        "volumes",
        "volumeMounts",
        "mountPath",
        "emptyDir",
        "secret",
        "hostPath",
        "path",
        "items",
        "sizeLimit",
        "ports",
        "containerPort",
        "labels",
        "restartPolicy",
        "subPath",
    ]
)
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["/x", "../x", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(metadata=hostile, spec=hostile)
def test_whatever_is_in_it_the_answer_is_a_pod_or_a_clear_error(metadata: Any, spec: Any) -> None:
    with pytest.raises(PodSpecError):
        parse_pod({"metadata": metadata, "spec": spec}, "gpt-0")


def paths_of(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in entries for path in ((*here, key), *paths_of(item, (*here, key)))]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_one_wrong_field_raises_nothing_but_the_clear_error(data: st.DataObject) -> None:
    manifest = whole()
    path = data.draw(st.sampled_from(paths_of(manifest)))
    target: Any = manifest
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = data.draw(hostile)
    with contextlib.suppress(PodSpecError):
        parse_pod(manifest, "gpt-0")


def whole() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "metadata": {"name": "gpt-0", "uid": "u", "labels": {"a": "b"}},
            "spec": {
                "nodeName": "node-1",
                "restartPolicy": "OnFailure",
                "terminationGracePeriodSeconds": 7,
                "initContainers": [{"name": "side", "command": ["x"], "restartPolicy": "Always"}],
                "containers": [
                    {
                        "name": "trainer",
                        "command": ["python3"],
                        "args": ["train.py"],
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                        ],
                        "ports": [{"name": "http", "containerPort": 80}],
                        "volumeMounts": [{"name": "shm", "mountPath": "/shm/", "subPath": "a/b"}],
                    }
                ],
                "volumes": [
                    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                    {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
                ],
            },
        }
    )


def test_a_whole_pod() -> None:
    pod = parse_pod(whole(), "gpt-0")
    assert pod.grace_seconds == 7
    assert pod.init_containers[0].sidecar
    [trainer] = pod.containers
    assert not trainer.sidecar
    assert trainer.command == ("python3", "train.py")
    assert trainer.mounts[0].path == "/shm"
    assert (pod.volumes["shm"].kind, pod.volumes["shm"].size_limit) == (VolumeKind.MEMORY, 1024**3)
    assert pod.volumes["s"].items == (("k", "p"),)


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("spec", "containers", 0, "volumeMounts", 0, "subPath"), "../../etc", "leaves its volume"),
        (("spec", "containers", 0, "volumeMounts", 0, "mountPath"), "/", "absolute path below /"),
        (("spec", "containers", 0, "volumeMounts", 0, "name"), "other", "spec.volumes lacks"),
        (("spec", "containers", 0, "envFrom"), [{"configMapRef": {}}], "name each variable"),
        (("spec", "containers", 0, "ports", 0, "containerPort"), 70000, "not a port"),
        (("spec", "volumes", 0, "emptyDir", "sizeLimit"), "much", "not a quantity"),
        (("spec", "volumes", 1, "secret", "items", 0, "path"), "/etc/x", "leaves its volume"),
        (("spec", "restartPolicy"), "Sometimes", "none of Always"),
        (("metadata", "uid"), "../x", "is not a name"),
        (("metadata", "name"), "gpt-1", "the object is called"),
    ],
)
def test_errors_name_the_field_and_the_way_out(path: tuple[Any, ...], value: Any, part: str) -> None:
    manifest = whole()
    target: Any = manifest
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(PodSpecError, match=part):
        parse_pod(manifest, "gpt-0")


@pytest.mark.parametrize(
    ("text", "expected"), [("512Mi", 512 * 2**20), ("1G", 10**9), ("1.5Ki", 1536), (7, 7), ("100m", 0)]
)
def test_quantities(text: object, expected: int) -> None:
    assert parse_bytes(text, "x") == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(5, 5), (0, 0), (-1, 30), (True, 30), ("5", 30), (1e12, 86400), (None, 30)]
)
def test_grace(value: object, expected: float) -> None:
    assert grace_of(value) == expected


def test_numbers_beyond_numbers_are_no_grace() -> None:
    assert grace_of(float("nan")) == 30
    assert grace_of(10**400) == 86400
