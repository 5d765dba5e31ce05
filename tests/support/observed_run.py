"""A real run of `sternpost run` under the eyes of a real Prometheus, with the labels that the chart's monitors set."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_job import Job
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_server import Server

from sternpost_operator.metrics.jobs import JobMetrics, JobSample
from sternpost_operator.metrics.operator_metrics import OperatorMetrics
from sternpost_operator.recovery.observed import AnomalyView
from sternpost_operator.resources.anomaly import Anomaly
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import TrainingJobStatus

CONTAINERS = {"eagle-eye": "sternpost-eagle-eye", "checkpoint": "sternpost-checkpoint"}
"""Which container has the port; the ports of the ranks are the trainer's."""


class OperatorPage:
    """The operator's own metric classes, fed with the statuses that the run's real operator writes.

    In local mode the operator has no page, no leader and no API server: of what it measures, this has what follows from
    statuses. The rest is looked at on a cluster.
    """

    def __init__(self, namespace: str, objects: Path) -> None:
        self._namespace = namespace
        self._objects = objects
        self._registry = CollectorRegistry()
        self._jobs = JobMetrics(self._registry)
        self._operator = OperatorMetrics(self._registry)
        self._before: dict[str, TrainingJobStatus] = {}

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve it; yields the address."""
        server, thread = start_http_server(0, "127.0.0.1", self._registry)
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def look(self) -> None:
        """Read the objects once, as a watch of the operator would tell of them."""
        jobs = [
            TrainingJob.model_validate(wire)
            for wire in map(_read, (self._objects / "trainingjobs").glob("*.json"))
            if wire
        ]
        for job in jobs:
            name = job.metadata.name
            self._operator.status_changed(self._before.get(name, TrainingJobStatus()), job.status)
            self._before[name] = job.status
            self._jobs.show(self._namespace, name, JobSample(job.status, job.spec, self._anomalies(name)))
        self._operator.incidents_waiting(sum(len(job.status.unsent_incidents) for job in jobs))

    def _anomalies(self, job: str) -> tuple[AnomalyView, ...]:
        wires = filter(None, map(_read, (self._objects / "anomalies" / job).glob("*.json")))
        found = [Anomaly.model_validate(wire) for wire in wires]
        return tuple(AnomalyView(each.metadata.name, each.spec) for each in found)


def worker_targets(objects: Path) -> list[tuple[str, dict[str, str]]]:
    """The metrics pages of all Pods, labelled as the PodMonitor does."""
    targets = []
    for folder in sorted((objects / "pods").glob("*")):
        pod, status = _read(folder / "pod.json"), _read(folder / "status.json")
        if not pod or not status or status.get("uid") != pod["metadata"]["uid"]:
            continue
        labels = {
            "namespace": pod["metadata"].get("namespace", "default"),
            "pod": pod["metadata"]["name"],
            "node": pod["spec"].get("nodeName", ""),
            "job_name": pod["metadata"]["labels"]["sternpost.dev/job"],
        }
        for port, number in status.get("ports", {}).items():
            container = "trainer" if port.startswith("metrics-") else CONTAINERS.get(port)
            if container:
                targets.append((f"127.0.0.1:{number}", labels | {"container": container, "endpoint": port}))
    return targets


def memory_target(state_dir: Path) -> list[tuple[str, dict[str, str]]]:
    """The memory service of the run, once it listens."""
    address = _read(state_dir / "memory.json")
    if not address:
        return []
    return [(address["url"].removeprefix("http://"), {"namespace": "sternpost-system", "pod": "sternpost-memory-0"})]


def observe(job: Job, process: subprocess.Popen[str], server: Server, page: OperatorPage, address: str) -> None:
    """Let Prometheus see everything until the process ends."""
    objects = job.state_dir / "objects"
    operator = (address, {"namespace": "sternpost-system", "pod": "sternpost-operator-0"})
    known: list[tuple[str, dict[str, str]]] = []
    while process.poll() is None:
        page.look()
        targets = [operator, *memory_target(job.state_dir), *worker_targets(objects)]
        if targets != known:
            server.scrape(targets)
            known = targets
        time.sleep(0.25)
    page.look()


def _read(path: Path) -> dict[str, Any] | None:
    """None for what is missing, or is just being replaced."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
