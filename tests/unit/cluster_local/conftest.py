from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sternpost_operator.cluster.local.json_files import read_object
from sternpost_operator.cluster.local.node_process import end_orphans, find_orphans, start_node
from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.paths import LocalPaths


def wait_for(test: Callable[[], Any], seconds: float = 15) -> Any:
    """The first true value of the test; fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := test()):
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.02)
    return value


def container(name: str, *command: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": list(command), **fields}


def shell(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return container(name, "sh", "-c", script, **fields)


def sidecar(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return shell(name, script, restartPolicy="Always", **fields)


def pod(
    name: str,
    *main: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    node: str | None = "node-1",
    uid: str | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-of-{name}", "labels": labels or {}},
        "spec": {
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": 5,
            "initContainers": list(init),
            "containers": list(main),
            **spec,
        },
    }
    if node is not None:
        manifest["spec"]["nodeName"] = node
    return manifest


class Build:
    """Manifests for tests."""

    container = staticmethod(container)
    shell = staticmethod(shell)
    sidecar = staticmethod(sidecar)
    pod = staticmethod(pod)


class Machine(Build):
    """A state folder with nodes, and what tests ask of it."""

    wait_for = staticmethod(wait_for)

    def __init__(self, folder: Path) -> None:
        self.paths = LocalPaths(folder / "state", folder / "memory")
        self.paths.make()
        self.store = ObjectStore(self.paths.objects)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str = "node-1", **options: Any) -> subprocess.Popen[bytes]:
        process = self.agents[name] = start_node(self.paths, name, **options)
        wait_for(lambda: (self.store.get("nodes", name) or {}).get("pid") == process.pid)
        return process

    def create(self, name: str, *main: dict[str, Any], **fields: Any) -> None:
        assert self.store.create_pod(self.pod(name, *main, **fields))

    def status(self, name: str) -> dict[str, Any]:
        found = read_object(self.paths.objects / "pods" / name / "status.json")
        return found["status"] if found else {}

    def reported(self, name: str) -> dict[str, Any]:
        return read_object(self.paths.objects / "pods" / name / "status.json") or {}

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def container_status(self, name: str, container: str = "trainer") -> dict[str, Any]:
        status = self.status(name)
        everything = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
        return next((item for item in everything if item["name"] == container), {})

    def log(self, name: str, container: str = "trainer") -> str:
        path = self.paths.logs / name / f"{container}.log"
        return path.read_text() if path.exists() else ""

    def mark_deleted(self, name: str, grace: float = 5) -> None:
        manifest = self.store.pod(name)
        assert manifest is not None
        manifest["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        assert self.store.write_pod(manifest)

    def close(self) -> None:
        for name in self.agents:
            sys.stderr.write(self.paths.node_log(name).read_text())
        end_orphans(self.paths, grace_seconds=0)
        for process in self.agents.values():
            process.wait(timeout=10)
        assert find_orphans(self.paths) == []


@pytest.fixture
def build() -> type[Build]:
    return Build


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    assert not os.environ.get("STERNPOST_LOCAL_STATE")
    made = Machine(tmp_path)
    yield made
    made.close()
