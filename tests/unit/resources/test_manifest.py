from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.resources.manifest import MAX_BYTES, ManifestError, load_job, parse_manifest
from sternpost_operator.resources.training_job import TrainingJob

TEXT = """\
apiVersion: sternpost.dev/v1alpha1
kind: TrainingJob
metadata:
  name: gpt
spec:
  workers: 2
  template:
    spec:
      containers:
        - name: trainer
          image: gpt
          command: [python3, train.py]
  checkpoint:
    storage: s3://bucket/gpt
  recovery:
    budgets: {ranks: 1}
"""
GOOD: dict[str, Any] = yaml.safe_load(TEXT)
REMOVED = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = document
    for part in parents:
        target = target[part]
    if value is REMOVED:
        del target[last]
    else:
        target[last] = value
    return document


def problems(text: str | dict[str, Any]) -> list[str]:
    content = text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False)
    manifest = parse_manifest(content.encode())
    assert (manifest.job is None) == bool(manifest.problems)
    return [f"{problem.path}: {problem.message}" for problem in manifest.problems]


def test_a_good_manifest_is_a_job() -> None:
    manifest = parse_manifest(TEXT.encode())
    assert manifest.problems == ()
    assert manifest.job == TrainingJob.model_validate(GOOD)


def test_json_is_yaml_too() -> None:
    assert problems(json.dumps(GOOD)) == []


@pytest.mark.parametrize("document", [{"status": {"phase": "nonsense"}}, {"status": None}])
def test_a_status_is_ignored(document: dict[str, Any]) -> None:
    assert problems({**GOOD, **document}) == []


def test_null_counts_as_left_out() -> None:
    assert problems(changed("spec.elastic", None)) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.workers", 0, "spec.workers: is 0; must be at least 1"),
        ("spec.workers", "2", "spec.workers: is '2'; must be a whole number"),
        ("spec.workers", 1.5, "spec.workers: is 1.5; must be a whole number"),
        ("spec.workers", True, "spec.workers: is true; must be a whole number"),
        ("spec.workers", REMOVED, "spec: give exactly one of workers and elastic"),
        ("spec.elastic", {"min": 1, "max": 2}, "spec: give exactly one of workers and elastic"),
        ("spec.suspend", "yes", "spec.suspend: is 'yes'; must be true or false"),
        ("spec.recovery", [], "spec.recovery: is a list; must be an object"),
        ("spec.recovery.budgets.ranks", -1, "spec.recovery.budgets.ranks: is -1; must be at least 0"),
        ("spec.recovery.budget", {}, "spec.recovery.budget: unknown field; did you mean budgets?"),
        ("spec.ranks_per_worker", 2, "spec.ranks_per_worker: unknown field; did you mean ranksPerWorker?"),
        ("spec.replicas", 2, "spec.replicas: unknown field; allowed are "),
        ("spec.checkpoint.storage", "/mnt/x", "spec.checkpoint.storage: is '/mnt/x'; must be a URI"),
        ("spec.checkpoint.storage", "s3://b/$(X)", "without blanks and '$'"),
        ("spec.checkpoint.storage", REMOVED, "spec.checkpoint.storage: is missing"),
        ("spec.checkpoint.sharedMemory", "1 Gi", "such as 512Mi"),
        ("spec.checkpoint.sharedMemory", "1Mi", "spec.checkpoint.sharedMemory: is 1Mi; must be at least 8Mi"),
        ("spec.checkpoint.policy", "fast", "spec.checkpoint.policy: is 'fast'; must be one of 'lossless', 'adaptive'"),
        ("spec.checkpoint.maxUpdateError", 0.1, "maxUpdateError has no meaning with policy lossless"),
        ("spec.checkpoint.maxChain", 33, "spec.checkpoint.maxChain: is 33; must be at most 32"),
        ("spec.gang", {"scheduler": "slurm"}, "must be one of 'none', 'kueue', 'volcano', 'coscheduling'"),
        ("spec.template", REMOVED, "spec.template: is missing"),
        ("spec.template", [], "spec.template: is a list; must be an object"),
        ("spec.template.spec.containers.0.name", "main", "no container is named trainer"),
        ("spec.template.spec.containers.0.command", REMOVED, "spec.template.spec.containers[0]: needs command"),
        ("metadata.name", "GPT", "metadata.name: is 'GPT'; must be lower-case"),
        ("metadata.name", "7b", "metadata.name: is '7b'; must begin with a letter"),
        ("metadata.name", "x" * 56, "metadata.name: has 56 characters; at most 55"),
        ("metadata", REMOVED, "metadata: is missing"),
        ("metadata.labels", {"a": 1}, "metadata.labels.a: is 1; must be a string"),
        ("apiVersion", "sternpost.dev/v1", "apiVersion: is 'sternpost.dev/v1'; must be sternpost.dev/v1alpha1"),
        ("kind", "Job", "kind: is 'Job'; must be TrainingJob"),
        ("kind", REMOVED, "needs kind: TrainingJob"),
        ("extra", 1, "extra: unknown field; allowed are apiVersion, kind, metadata, spec, status"),
        ("spec.recovery.graceSeconds", float("inf"), "spec.recovery.graceSeconds: .inf is not a number"),
        ("spec.recovery.rules", [{"exitCodes": [], "action": "FailJob"}], "exitCodes: is a list; must have at least 1 entries"),
        ("spec.recovery.rules", [{"exitCodes": [1], "action": "Stop"}], "spec.recovery.rules[0].action: is 'Stop'; must be"),
    ],
)  # fmt: skip
def test_each_problem_names_the_field_and_the_way_out(path: str, value: Any, words: str) -> None:
    assert any(words in problem for problem in problems(changed(path, value))), problems(changed(path, value))


def test_min_above_max() -> None:
    document = changed("spec.workers", REMOVED)
    document["spec"]["elastic"] = {"min": 3, "max": 2}
    assert problems(document) == ["spec.elastic: min (3) must not exceed max (2)"]


def test_all_problems_come_at_once_with_their_lines() -> None:
    text = (
        TEXT.replace("workers: 2", "workers: 0")
        .replace("ranks: 1", "ranks: -1")
        .replace("image: gpt", "restartPolicy: Always")
    )
    found = [(problem.line, problem.column, problem.path) for problem in parse_manifest(text.encode()).problems]
    assert found == [
        (6, 3, "spec.workers"),
        (11, 11, "spec.template.spec.containers[0].restartPolicy"),
        (16, 15, "spec.recovery.budgets.ranks"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# nothing\n---\n", "empty"),
        ("just words", "must be an object"),
        (f"{TEXT}---\n{TEXT}", "a second TrainingJob"),
        (f"kind: ConfigMap\n---\n{TEXT}", "a ConfigMap; a manifest holds one TrainingJob only"),
        (f"{TEXT}---\n[]", "a document that is no resource"),
        (f"{TEXT}---\n[", "not YAML"),
        (TEXT + "#" * MAX_BYTES, "larger than 256 KiB"),
        (TEXT.replace("image: gpt", "name: trainer"), "given twice"),
    ],
)
def test_files_that_hold_no_job(text: str, words: str) -> None:
    assert any(words in problem for problem in problems(text)), problems(text)


def test_the_job_may_stand_after_nothing() -> None:
    assert problems(f"---\n# first\n---\n{TEXT}") == []


def test_bytes_that_are_no_text() -> None:
    assert parse_manifest(b"a: 1\nb: \xff\n").problems[0].line == 2


def test_a_byte_order_mark_is_no_problem() -> None:
    assert problems("\ufeff" + TEXT) == []


def test_loading(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(TEXT)
    bad.write_text(TEXT.replace("workers: 2", "workers: 0"))
    assert load_job(good).spec.workers == 2
    with pytest.raises(ManifestError) as caught:
        load_job(bad)
    assert str(caught.value) == f"{bad}:6: spec.workers: is 0; must be at least 1"
    with pytest.raises(FileNotFoundError):
        load_job(tmp_path / "none.yaml")


def test_the_examples_are_valid() -> None:
    files = sorted((Path(__file__).parents[3] / "examples").rglob("*.yaml"))
    # A claim stands in a file of its own, beside the job that mounts it: everything else is a job.
    jobs = [file for file in files if file.name != "claim.yaml"]
    assert {"cluster.yaml", "job.yaml", "short.yaml"} <= {file.name for file in jobs}
    for file in jobs:
        assert load_job(file).kind == "TrainingJob"


VALUES = st.sampled_from(
    [None, 0, -1, 1.5, "", "x", [], {}, [None], {"x": 1}, [[]], [{}], True, 2**70, "1Gi", ["a", 1]]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


RICH = copy.deepcopy(GOOD)
RICH["spec"]["template"] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {
        "restartPolicy": "OnFailure",
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
                }
            }
        },
        "volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [{"name": "load", "image": "i", "command": ["true"]}],
        "containers": [
            {
                "name": "trainer",
                "command": ["python3"],
                "args": ["x"],
                "env": [{"name": "A", "value": "b"}],
                "ports": [{"name": "web", "containerPort": 80}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "resources": {"limits": {"memory": "8Gi"}},
                "securityContext": {"runAsUser": 1},
            }
        ],
    },
}


@given(st.lists(st.tuples(st.sampled_from(places(RICH)), VALUES), min_size=1, max_size=3))
@settings(deadline=None, max_examples=150)
def test_whatever_stands_anywhere_nothing_raises(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document: Any = copy.deepcopy(RICH)
    for path, value in changes:
        target: Any = document
        try:
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    problems(json.dumps(document))
