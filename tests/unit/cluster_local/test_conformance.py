"""`LocalCluster` does what every cluster must. The stage plays the nodes' agents."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cluster_conformance import ClusterConformance
from fake_memory import FakeMemory

from sternpost_operator.cluster.local.cluster import LocalCluster
from sternpost_operator.cluster.local.node_record import NodeRecord
from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.cluster.local.processes import boot_id, identify
from sternpost_operator.resources.anomaly import Anomaly, AnomalySpec
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.training_job import TrainingJob, TrainingJobSpec

T = TypeVar("T")


class LocalStage:
    def __init__(self, folder: Path) -> None:
        self.paths = LocalPaths(folder / "state", folder / "memory")
        self.nodes: dict[str, bool] = {}
        self.clock = time.time
        self.loop = asyncio.new_event_loop()
        self.service = FakeMemory()
        self.wait(self.service.start())
        self.cluster = self._open()

    def _open(self) -> LocalCluster:
        return LocalCluster(self.paths, memory_url=self.service.url)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        for name, ready in self.nodes.items():
            self._beat(name, ready=ready)
        return self.loop.run_until_complete(work)

    def put_job(self, name: str, spec: dict[str, Any]) -> None:
        known = self.cluster.store.get_job(name)
        parsed = TrainingJobSpec.model_validate(spec)
        if known is None:
            self.cluster.store.put_job(TrainingJob(metadata=ObjectMeta(name=name), spec=parsed))
        else:
            self.cluster.store.put_job(known.model_copy(update={"spec": parsed}))

    def delete_job(self, name: str) -> None:
        self.cluster.delete_job(name)

    def node(self, name: str, *, ready: bool) -> None:
        self.nodes[name] = ready
        self._beat(name, ready=ready)

    def _beat(self, name: str, *, ready: bool) -> None:
        """The agent is this process; one that is not ready is silent."""
        identity = identify(os.getpid())
        assert identity is not None
        known = self.cluster.store.get("nodes", name)
        if not ready and known is not None and known["heartbeatAt"] <= self.clock() - 60:
            return
        beat = self.clock() if ready else self.clock() - 60
        started = known["startedAt"] if known is not None else beat - 120
        record = NodeRecord(name, identity, os.getpid(), started, beat, boot_id())
        self.cluster.store.put("nodes", name, record.to_object())

    def run_pod(self, name: str, node: str) -> None:
        self._report(name, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, node)

    def finish_pod(self, name: str, exit_code: int) -> None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
        self._report(name, phase, {"terminated": {"exitCode": exit_code, "reason": "Error"}}, None)

    def _report(self, name: str, phase: str, state: dict[str, Any], node: str | None) -> None:
        manifest = self.cluster.store.pod(name)
        assert manifest is not None
        if node is not None:
            manifest["spec"]["nodeName"] = node
            self.cluster.store.write_pod(manifest)
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": str(phase == "Running")}],
            "containerStatuses": [{"name": "trainer", "restartCount": 0, "state": state}],
        }
        uid = manifest["metadata"]["uid"]
        self.cluster.store.write_pod_status(name, {"uid": uid, "status": status, "ports": {"eagle-eye": 21_000}})

    def confirm_end(self, name: str) -> None:
        manifest = self.cluster.store.pod(name)
        if manifest is not None:
            self.cluster.store.remove_pod(name, manifest["metadata"]["uid"])

    def put_anomaly(self, name: str, spec: AnomalySpec) -> None:
        folder = self.paths.objects / "anomalies" / spec.job
        folder.mkdir(parents=True, exist_ok=True)
        anomaly = Anomaly(metadata=ObjectMeta(name=name), spec=spec)
        (folder / f"{name}.json").write_text(anomaly.model_dump_json(by_alias=True, exclude_none=True))

    def memory(self, *, up: bool) -> None:
        self.service.up = up

    def remembered(self) -> list[dict[str, Any]]:
        return list(self.service.taken.values())

    def another_operator(self) -> None:
        self.wait(self.cluster.aclose())
        self.cluster = self._open()

    def close(self) -> None:
        self.wait(self.cluster.aclose())
        self.wait(self.service.stop())
        self.loop.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[LocalStage]:
    made = LocalStage(tmp_path)
    yield made
    made.close()


class TestLocalCluster(ClusterConformance):
    """All of it."""
